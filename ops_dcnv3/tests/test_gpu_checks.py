"""The checks for GPUs, tried on the CPU: they pass, and a wrong operator makes them fail."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import torch
from dcnv3_cases import Case
from gpu_checks import CHECKS, Check, Skip, __main__, devices, memory, repeats, run_check, table
from torch import Tensor

import ops_dcnv3
from ops_dcnv3 import ops

CPU = torch.device("cpu")
right, right_packed = ops_dcnv3.dcnv3, ops.dcnv3_packed
TINY = Case(batch=2, height=5, width=6, groups=2, group_channels=16, softmax=True)

# One of each kind, with a shape that a CPU does in a second.
SOME = [
    "small/float64/height=3-width=4-group_channels=7",
    "small/float16/height=8-width=9-group_channels=16-kernel_size=5-padding=2-softmax=True",
    "small/bfloat16/height=9-width=8-group_channels=16-offset_scale=2.0-softmax=True",
    "loops/float64/height=3-width=4-group_channels=7",
    "real/float32/batch=6-height=7-width=7-groups=32-group_channels=16-softmax=True",
    "float32-offsets/bfloat16/batch=6-height=7-width=7-groups=32-group_channels=16-softmax=True",
    "layouts/float32/height=6-width=7-groups=3-group_channels=7",
    "memory/recycled/float16",
    "autocast/float16",
    "autocast/bfloat16",
]
PACKED = [name for name in CHECKS if name.startswith("packed/")]
HOSTILE = [name for name in CHECKS if name.startswith("hostile/")]
LAYERS = [name for name in CHECKS if name.startswith(("layer/", "loss-scaling/"))]
OTHERS = ["shapes/empty-batch", "shapes/only-some-gradients", "devices/forced_backend"]
OTHERS += [name for name in CHECKS if name.startswith("opcheck/")]


class ScaledGradient(torch.autograd.Function):
    """The identity, with a gradient that is five per cent too large."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * 1.05


def wrong_output(*tensors: Tensor, **settings) -> Tensor:
    return right(*tensors, **settings) * 1.05


def wrong_gradient(index: int, *tensors: Tensor, **settings) -> Tensor:
    given = [ScaledGradient.apply(t) if i == index else t for i, t in enumerate(tensors)]
    return right(*given, **settings)


def swapped_axes(image: Tensor, offset: Tensor, mask: Tensor, **settings) -> Tensor:
    return right(image, offset.unflatten(-1, (-1, 2)).flip(-1).flatten(-2), mask, **settings)


def finite_offsets(image: Tensor, offset: Tensor, mask: Tensor, **settings) -> Tensor:
    return right(image, offset.nan_to_num(0, 0, 0).clamp(-9, 9), mask, **settings)


def finite_image(image: Tensor, offset: Tensor, mask: Tensor, **settings) -> Tensor:
    return right(image.nan_to_num(0), offset, mask, **settings)


def nan_everywhere(image: Tensor, offset: Tensor, mask: Tensor, **settings) -> Tensor:
    return right(image, offset, mask, **settings) + 0 * mask.sum().to(image.dtype)


def naive_softmax(
    image: Tensor, offset: Tensor, mask: Tensor, *, softmax: bool, groups: int, **settings
) -> Tensor:
    if softmax:
        powers = mask.unflatten(-1, (groups, -1)).exp()
        mask = (powers / powers.sum(-1, keepdim=True)).flatten(-2)
    return right(image, offset, mask, groups=groups, **settings)


def finite_gradient(*tensors: Tensor, **settings) -> Tensor:
    output = right(*tensors, **settings)
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.nan_to_num(0, 0, 0))
    return output


FAULTS: dict[str, Callable[..., Tensor]] = {
    "output": wrong_output,
    "grad_input": partial(wrong_gradient, 0),
    "grad_offset": partial(wrong_gradient, 1),
    "grad_mask": partial(wrong_gradient, 2),
    "axes": swapped_axes,
}


def status_of(name: str, device: torch.device = CPU) -> str:
    return run_check(CHECKS[name], device).status


@pytest.mark.parametrize("name", SOME + PACKED + HOSTILE + LAYERS + OTHERS)
def test_a_check_passes_on_the_cpu(name):
    outcome = run_check(CHECKS[name], CPU)
    assert outcome.status == "passed", outcome.detail


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [name for name in SOME if not name.startswith("autocast")])
def test_a_check_of_numbers_fails_with_a_wrong_operator(monkeypatch, name, fault):
    monkeypatch.setattr(ops_dcnv3, "dcnv3", FAULTS[fault])
    assert status_of(name) == "failed"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_check_of_autocast_fails_with_rounded_offsets_and_with_a_wrong_dtype(
    monkeypatch, dtype
):
    def rounded(image, offset, mask, **settings):
        return right(image, offset.to(getattr(torch, dtype)), mask, **settings)

    def float32(*tensors, **settings):
        return right(*tensors, **settings).float()

    for fault in (rounded, float32, wrong_output):
        monkeypatch.setattr(ops_dcnv3, "dcnv3", fault)
        assert status_of(f"autocast/{dtype}") == "failed", fault


@pytest.mark.parametrize("name", PACKED)
def test_a_check_of_the_packed_entry_fails_with_a_wrong_operator(monkeypatch, name):
    def wrong(image, joint, *static):
        return right_packed(image, joint, *static) * 1.05

    def reads_the_padding(image, joint, *static):
        return right_packed(image, joint, *static) + 0 * joint.sum().to(image.dtype)

    for fault in (wrong, reads_the_padding):
        monkeypatch.setattr(ops, "dcnv3_packed", fault)
        assert status_of(name) == "failed", fault


@pytest.mark.parametrize(
    "function, fault",
    [
        ("one_hostile_point", finite_offsets),
        ("one_hostile_point", nan_everywhere),
        ("hostile_everywhere", finite_offsets),
        ("bad_pixel", finite_image),
        ("bad_pixel", lambda i, o, m, **s: right(i, o, m, **s) + 0 * i.sum()),
        ("bad_weight", nan_everywhere),
        ("bad_weight", lambda i, o, m, **s: right(i, o, m.nan_to_num(0), **s)),
        ("extreme_logits", naive_softmax),
        ("infinite_gradient", finite_gradient),
    ],
)
def test_a_check_of_hostile_values_fails_with_an_operator_that_spreads_or_hides_them(
    monkeypatch, function, fault
):
    if function == "one_hostile_point" and fault is nan_everywhere:
        fault = lambda i, o, m, **s: right(i, o, m, **s) + 0 * o.sum().to(i.dtype)  # noqa: E731
    monkeypatch.setattr(ops_dcnv3, "dcnv3", fault)
    names = [name for name in HOSTILE if name.split("/")[1] == function]
    assert names
    for name in names:
        assert status_of(name) == "failed", name


def test_the_check_of_single_gradients_fails_when_one_differs(monkeypatch):
    monkeypatch.setattr(ops_dcnv3, "dcnv3", partial(wrong_gradient, 1))
    assert status_of("shapes/only-some-gradients") == "failed"


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith("layer/")])
def test_a_check_of_the_layer_fails_with_a_wrong_operator(monkeypatch, name):
    def wrong(image, joint, *static, **settings):
        return right_packed(image, joint, *static, **settings) * 1.1

    monkeypatch.setattr("ops_dcnv3.modules.dcnv3_packed", wrong)
    assert status_of(name) == "failed"


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith("loss")])
def test_the_check_of_loss_scaling_fails_when_an_overflow_is_hidden(monkeypatch, name):
    def finite(image, joint, *static, **settings):
        output = right_packed(image, joint, *static, **settings)
        return output.detach()  # no gradient arrives, so none overflows and nothing trains

    monkeypatch.setattr("ops_dcnv3.modules.dcnv3_packed", finite)
    assert status_of(name) == "failed"


def test_the_checks_of_repeats_pass_and_find_an_operator_that_differs_once(monkeypatch):
    settings = {"case": TINY, "dtype": torch.float32, "runs": 12}
    assert "12 runs equal" in repeats.same_bits(CPU, **settings)
    assert "12 runs" in repeats.within_rounding(CPU, **settings)
    calls = 0

    def differs_once(*tensors, **settings):
        nonlocal calls
        calls += 1
        output = right(*tensors, **settings)
        return output * (1 + 1e-6) if calls % 7 == 0 else output

    monkeypatch.setattr(ops_dcnv3, "dcnv3", differs_once)
    for check in (repeats.same_bits, repeats.within_rounding):
        with pytest.raises(AssertionError, match="differs in run"):
            check(CPU, **settings)


@pytest.mark.parametrize(
    "check, limit",
    [(memory.huge_input, 2**22), (memory.huge_image, 2**21), (memory.huge_offsets, 2**21)],
)
def test_the_checks_of_huge_tensors_pass_at_a_smaller_limit_and_find_a_wrong_index(
    monkeypatch, check, limit
):
    check(CPU, limit=limit)

    def forgets_the_end(image, offset, mask, **settings):
        """As indices would that wrap around at the limit."""
        output = right(image, offset, mask, **settings)
        keep = torch.ones_like(output)
        keep.view(-1)[output.numel() * 9 // 10 :] = 0
        return output * keep

    monkeypatch.setattr(ops_dcnv3, "dcnv3", forgets_the_end)
    with pytest.raises(AssertionError, match="allowed"):
        check(CPU, limit=limit)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", ["static", "dynamic"])
def test_the_check_of_compiling_passes_and_fails_with_a_wrong_operator(monkeypatch, dynamic):
    assert status_of(f"compile/aot_eager/{dynamic}") == "passed"
    monkeypatch.setattr(ops_dcnv3, "dcnv3", wrong_output)
    assert status_of(f"compile/aot_eager/{dynamic}") == "failed"


@pytest.mark.slow
@pytest.mark.inductor
@pytest.mark.parametrize("dynamic", ["static", "dynamic"])
def test_the_check_of_compiling_with_inductor_passes(dynamic):
    outcome = run_check(CHECKS[f"compile/inductor/{dynamic}"], CPU)
    assert outcome.status == "passed", outcome.detail


@pytest.mark.parametrize(
    "wanted, backends, device, passes",
    [
        ("auto", ("cuda", "cpu", "reference"), "cuda", True),
        ("auto", ("triton", "cpu", "reference"), "cuda", False),
        ("auto", ("cpu", "reference"), "cuda", False),
        ("native", ("triton", "reference"), "cuda", False),
        ("triton", ("triton", "reference"), "cuda", True),
        ("triton", ("cuda", "reference"), "cuda", False),
        ("auto", ("cuda", "cpu", "reference"), "cpu", True),
        ("auto", ("cuda", "reference"), "cpu", False),
        ("native", ("cuda", "reference"), "cpu", False),
        ("reference", ("reference",), "cpu", True),
    ],
)
def test_a_backend_that_does_not_serve_is_found(monkeypatch, wanted, backends, device, passes):
    set_up_backends(monkeypatch, wanted, backends, ("80", "90"))
    if passes:
        devices.forced_backend(torch.device(device, 0))
    else:
        with pytest.raises(AssertionError, match="expected .*, got"):
            devices.forced_backend(torch.device(device, 0))


@pytest.mark.parametrize("archs", [(), ("100",)])
@pytest.mark.parametrize("has_triton", [True, False])
def test_without_kernels_for_the_device_triton_has_to_serve_where_it_is_installed(
    monkeypatch, archs, has_triton
):
    spec = object() if has_triton else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    set_up_backends(monkeypatch, "auto", ("triton", "reference"), archs)
    devices.forced_backend(torch.device("cuda", 0))
    set_up_backends(monkeypatch, "auto", ("reference",), archs)
    if has_triton:
        with pytest.raises(AssertionError, match="expected triton, got"):
            devices.forced_backend(torch.device("cuda", 0))
    else:
        devices.forced_backend(torch.device("cuda", 0))


def set_up_backends(
    monkeypatch: pytest.MonkeyPatch, wanted: str, backends: tuple[str, ...], archs: tuple[str, ...]
) -> None:
    """A machine with an H200, and a package that reports this."""
    info = {"backends": backends, "cuda_archs": archs, "path": "_C.so"}
    monkeypatch.setenv("OPS_DCNV3_BACKEND", wanted)
    monkeypatch.setattr(ops_dcnv3, "extension_info", lambda: info)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(devices, "make_tensors", lambda *arguments: (None, None))
    monkeypatch.setattr(devices, "run", lambda *arguments: None)


# ------------------------------------------------------------------------------- the table itself


def test_checks_that_need_a_gpu_are_skipped_without_one():
    for check in CHECKS.values():
        if check.needs_cuda:
            assert run_check(check, CPU).status == "skipped", check.name


def test_the_table_covers_every_dtype_and_what_the_kernels_must_not_get_wrong():
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        names = [name for name in CHECKS if f"/{dtype}/" in name]
        assert Counter(name.split("/")[0] for name in names)["small"] >= 35
        for channels in (1, 7, 16, 32, 33, 64, 257, 1024):
            wanted = f"group_channels={channels}"
            assert any(n.startswith("small/") and wanted in n.split("-") for n in names), wanted
    for side in (7, 14, 28, 56):
        assert any(f"height={side}-width={side}" in name for name in CHECKS)
    assert repeats.DETERMINISTIC_RUNS >= 50 and repeats.DEFAULT_RUNS >= 250
    assert memory.LIMIT == 2**31


def test_what_runs_under_a_sanitizer_is_small_and_not_slow():
    chosen = [check for check in CHECKS.values() if check.sanitize]
    assert len(chosen) > 100
    assert not any(check.slow or check.needs_cuda for check in chosen)


def add_checks(monkeypatch, *checks: Check) -> None:
    """A table of these alone."""
    monkeypatch.setattr(__main__, "CHECKS", {check.name: check for check in checks})


def fails(device: torch.device) -> None:
    raise AssertionError("a planted failure")


def lacks(device: torch.device) -> None:
    raise Skip("a planted lack")


def test_a_run_reports_logs_and_goes_on_after_a_failure(monkeypatch, capsys, tmp_path):
    log = tmp_path / "log.jsonl"
    add_checks(
        monkeypatch,
        Check("first", lambda device: "some figures"),
        Check("second", fails),
        Check("third", lacks),
        Check("fourth", lambda device: None, slow=True),
    )
    arguments = ["--device", "cpu", "--log", str(log)]
    assert __main__.main([*arguments, "--quick"]) == __main__.FAILED
    printed = capsys.readouterr().out
    assert "a planted failure" in printed and "some figures" in printed
    ended = [json.loads(line) for line in log.read_text().splitlines()]
    statuses = {e["name"]: e["status"] for e in ended}
    assert statuses == {"first": "passed", "second": "failed", "third": "skipped"}
    assert [e["status"] for e in ended[:2]] == ["started", "passed"]
    assert __main__.main(arguments) == 0  # only the slow one is left
    assert "1 checks" in capsys.readouterr().out


def test_a_run_stops_when_its_time_is_over_or_the_device_is_lost(monkeypatch, tmp_path):
    add_checks(monkeypatch, Check("first", fails), Check("second", lambda device: None))
    assert __main__.main(["--device", "cpu", "--time-limit", "0"]) == __main__.OUT_OF_TIME
    monkeypatch.setattr(__main__, "device_is_lost", lambda device: True)
    log = tmp_path / "log.jsonl"
    assert __main__.main(["--device", "cpu", "--log", str(log)]) == __main__.LOST
    assert {json.loads(line)["name"] for line in log.read_text().splitlines()} == {"first"}
    assert not table.device_is_lost(CPU)
