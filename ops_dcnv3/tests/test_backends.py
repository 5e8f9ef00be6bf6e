"""Which backend serves CUDA tensors: every branch of the decision, on machines of all kinds.

None of them needs a GPU: what a machine would answer is put in at the boundary.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from environments import environment

import ops_dcnv3
from ops_dcnv3 import backends, extension, reference_ops
from ops_dcnv3.extension import CudaKernels

ARCHS = ("80", "86", "89", "90", "90+PTX", "100", "120", "120+PTX")
CUDA_13_0, CUDA_13_1, CUDA_12_8 = 13000, 13010, 12080
V100, A100, A10, H200, B200, B300, THOR, RTX_5090, SPARK = (
    *((7, 0), (8, 0), (8, 6), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)),
)
FUTURE = (13, 0)
CUDA_0 = torch.device("cuda", 0)


@pytest.mark.parametrize(
    "arch, capability, expected",
    [
        ("80", A100, True),
        ("80", A10, True),  # a higher minor version
        ("86", A100, False),  # a lower one
        ("80", H200, False),  # another major version
        ("100", B300, True),
        ("120", SPARK, True),
        ("100", RTX_5090, False),
        ("90+PTX", THOR, True),
        ("120+PTX", FUTURE, True),
        ("120+PTX", RTX_5090, True),
        ("120+PTX", B300, False),
        ("120+PTX", THOR, False),
    ],
)
def test_code_serves_its_own_major_version_and_portable_code_everything_newer(
    arch, capability, expected
):
    assert backends.serves(arch, capability) is expected


@pytest.mark.parametrize(
    "device", [A100, A10, H200, B200, B300, THOR, RTX_5090, SPARK, FUTURE], ids=str
)
def test_the_compiled_kernels_serve_every_device_from_the_a100_on(device):
    assert backends.why_not_compiled(ARCHS, CUDA_13_0, CUDA_13_0, [device]) == ""


@pytest.mark.parametrize(
    "runtime, driver, devices, named",
    [
        (CUDA_13_0, 0, [], "no NVIDIA driver"),
        (CUDA_13_0, CUDA_12_8, [H200], "need a driver for CUDA 13.0 or newer.*CUDA 12.8"),
        (CUDA_13_0, CUDA_13_0, [V100], "device 0 of compute capability 7.0"),
        (CUDA_13_0, CUDA_13_0, [H200, V100], "device 1 of compute capability 7.0"),
        # the driver would have to compile portable code that is newer than itself
        (CUDA_13_1, CUDA_13_0, [FUTURE], "device 0 of compute capability 13.0.*CUDA 13.0"),
    ],
    ids=str,
)
def test_what_the_compiled_kernels_cannot_serve_is_told(runtime, driver, devices, named):
    reason = backends.why_not_compiled(ARCHS, runtime, driver, devices)
    assert re.search(named, reason)


@pytest.mark.parametrize(
    "runtime, driver",
    [(CUDA_13_0, CUDA_13_1), (CUDA_13_1, CUDA_13_0), (CUDA_12_8, CUDA_13_0)],
)
def test_machine_code_needs_a_driver_of_the_same_major_version_or_newer(runtime, driver):
    assert backends.why_not_compiled(ARCHS, runtime, driver, [H200, RTX_5090]) == ""


def test_devices_that_may_not_be_asked_yet_are_no_reason():
    assert backends.why_not_compiled(ARCHS, CUDA_13_0, CUDA_13_0, None) == ""
    assert backends.why_not_compiled(ARCHS, CUDA_13_0, CUDA_12_8, None)


# ------------------------------------------------------------------------ machines, put in by hand


class Machine:
    """A machine with GPUs as the package sees it: what it asks for, and what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.registered = 0
        monkeypatch.setattr(backends, "_choices", {})
        backends._warn_unused_kernels.cache_clear()
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(extension, "register_cuda", self.register)
        self.ask_for("auto")
        self.has(A100)
        self.kernels(CudaKernels(ARCHS, CUDA_13_0, CUDA_13_0))
        self.triton(works="")

    def register(self) -> str:
        self.registered += 1
        return ""

    def ask_for(self, backend: str) -> None:
        self.patch.setattr(extension._State, "backend", backend)

    def has(self, *capabilities: tuple[int, int]) -> None:
        self.patch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        self.patch.setattr(torch.cuda, "get_device_capability", lambda i: capabilities[i])

    def kernels(self, kernels: CudaKernels | str) -> None:
        self.patch.setattr(extension, "cuda_kernels", lambda: kernels)

    def triton(self, works: str) -> None:
        self.patch.setattr(backends, "_probe_triton", lambda device: works)
        self.patch.setattr(backends, "why_no_triton", lambda: "")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with one A100 and everything in order."""
    return Machine(monkeypatch)


def triton_operator(name: str) -> Callable:
    """What runs on Triton; its import needs Triton."""
    triton_ops = pytest.importorskip("ops_dcnv3.triton_ops", exc_type=ImportError)
    return triton_ops.OPERATORS[name]


def test_the_compiled_kernels_come_first_and_are_registered_once(machine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        implementation = backends.implementation("dcnv3", CUDA_0)
        assert backends.implementation("dcnv3_backward", torch.device("cuda", 1)) is not None
    assert machine.registered == 1
    assert implementation not in reference_ops.OPERATORS.values()
    info = ops_dcnv3.extension_info()
    assert info["backends"][0] == "cuda" and info["cuda_archs"] == ARCHS
    assert "cuda" not in info["missing"]


def test_the_first_call_goes_back_to_the_dispatcher(machine, compiled):
    """Where the kernel is by then; a tensor of the CPU finds the one of the CPU."""
    image, offset, mask = torch.randn(1, 4, 4, 8), torch.zeros(1, 4, 4, 18), torch.ones(1, 4, 4, 9)
    static = (3, 3, 1, 1, 1, 1, 1, 1, 1, 1.0, False, False)
    output = backends.implementation("dcnv3", CUDA_0)(image, offset, mask, *static)
    assert torch.equal(output, ops_dcnv3.dcnv3(image, offset, mask, groups=1))


def test_calls_at_the_same_time_register_once(machine):
    def call() -> None:
        barrier.wait()
        backends.implementation("dcnv3", CUDA_0)

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert machine.registered == 1


@pytest.mark.parametrize(
    "kernels, devices, reason",
    [
        (CudaKernels(ARCHS, CUDA_13_0, CUDA_12_8), [A100], "newer driver"),
        (CudaKernels(ARCHS, CUDA_13_0, CUDA_13_0), [V100], "capability 7.0"),
        (CudaKernels(ARCHS, CUDA_13_0, CUDA_13_0), [A100, V100], "CUDA_VISIBLE_DEVICES"),
    ],
    ids=["old driver", "old device", "old device beside a new one"],
)
def test_triton_comes_second_with_one_warning_where_there_are_kernels(
    machine, kernels, devices, reason
):
    machine.kernels(kernels)
    machine.has(*devices)
    with pytest.warns(RuntimeWarning) as caught:
        for index in (0, 1, 0):
            device = torch.device("cuda", index)
            assert backends.implementation("dcnv3", device) is triton_operator("dcnv3")
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith("ops_dcnv3: CUDA tensors take Triton instead of the compiled kernels: ")
    assert reason in text
    info = ops_dcnv3.extension_info()
    assert "triton" in info["backends"] and "cuda" not in info["backends"]
    assert info["missing"]["cuda"] in text
    assert machine.registered == 0


def test_triton_is_no_reason_to_warn_where_no_kernels_were_built(machine):
    machine.kernels("the extension was built without CUDA kernels")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.implementation("dcnv3", CUDA_0) is triton_operator("dcnv3")
    assert "built without CUDA" in ops_dcnv3.extension_info()["missing"]["cuda"]


def test_an_only_device_is_not_told_to_be_hidden():
    reason = backends.why_not_compiled(ARCHS, CUDA_13_0, CUDA_13_0, [V100])
    assert "capability 7.0" in reason and "CUDA_VISIBLE_DEVICES" not in reason


def test_kernels_that_cannot_be_registered_leave_it_to_triton(machine, monkeypatch):
    monkeypatch.setattr(extension, "register_cuda", lambda: "they could not be registered")
    with pytest.warns(RuntimeWarning, match="they could not be registered"):
        assert backends.implementation("dcnv3", CUDA_0) is triton_operator("dcnv3")


def test_rocm_takes_triton(machine, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.implementation("dcnv3", CUDA_0) is triton_operator("dcnv3")
    assert "ROCm" in ops_dcnv3.extension_info()["missing"]["cuda"]


def test_the_reference_comes_last_with_one_warning_that_gives_both_reasons(machine):
    machine.has(V100)
    machine.triton(works="Triton does not work here: a compiler is missing")
    with pytest.warns(RuntimeWarning) as caught:
        for name in ("dcnv3", "dcnv3_backward", "dcnv3"):
            assert backends.implementation(name, CUDA_0) is reference_ops.OPERATORS[name]
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith("ops_dcnv3: cuda:0 takes the PyTorch reference")
    assert "capability 7.0" in text and "a compiler is missing" in text
    info = ops_dcnv3.extension_info()
    assert {"cuda", "triton"} <= set(info["missing"])
    assert info["missing"]["triton"] in text


def test_triton_is_not_started_where_the_compiled_kernels_serve(machine, monkeypatch):
    monkeypatch.setattr(backends, "_probe_triton", lambda device: pytest.fail("started"))
    backends.implementation("dcnv3", CUDA_0)


def test_a_tensor_without_a_device_number_is_on_the_current_one(machine):
    backends.implementation("dcnv3", torch.device("cuda"))
    assert list(backends._choices) == [0]


def test_each_device_has_a_choice_of_its_own_in_triton(machine, monkeypatch):
    machine.kernels("none were built")
    monkeypatch.setattr(backends, "_probe_triton", lambda device: "too old" if device.index else "")
    assert backends.implementation("dcnv3", CUDA_0) is triton_operator("dcnv3")
    with pytest.warns(RuntimeWarning, match="cuda:1 takes the PyTorch reference"):
        second = backends.implementation("dcnv3", torch.device("cuda", 1))
    assert second is reference_ops.OPERATORS["dcnv3"]


# ------------------------------------------------------------------------------- the C interface


class Entry:
    """A function of a C library, which ctypes lets one set the type of the result of."""

    def __init__(self, result: object) -> None:
        self.result = result

    def __call__(self) -> object:
        return self.result


class Library:
    """The extension as ctypes would load it, with the entries for CUDA."""

    ops_dcnv3_cuda_archs = Entry(b"80 90 120+PTX")
    ops_dcnv3_cuda_runtime_version = Entry(CUDA_13_0)
    ops_dcnv3_cuda_driver_version = Entry(CUDA_13_1)
    ops_dcnv3_register_cuda = Entry(0)


def test_the_extension_tells_what_its_kernels_need(monkeypatch):
    monkeypatch.setattr(extension._State, "library", Library())
    expected = CudaKernels(("80", "90", "120+PTX"), CUDA_13_0, CUDA_13_1)
    assert extension.cuda_kernels() == expected
    assert extension.register_cuda() == ""


def test_a_refusal_to_register_is_a_reason(monkeypatch):
    monkeypatch.setattr(extension._State, "library", Library())
    monkeypatch.setattr(Library, "ops_dcnv3_register_cuda", Entry(-1))
    assert "code -1" in extension.register_cuda()


def test_an_extension_without_cuda_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(extension._State, "library", object())
    assert "without CUDA" in extension.cuda_kernels() and "nvcc" in extension.cuda_kernels()
    monkeypatch.setattr(extension._State, "library", None)
    monkeypatch.setattr(extension._State, "reason", "it does not load")
    assert extension.cuda_kernels() == "it does not load"


@pytest.mark.slow
def test_the_kernels_of_this_build_register_when_told_to_and_not_before():
    if isinstance(extension.cuda_kernels(), str):
        pytest.skip(extension.cuda_kernels())
    done = run_script("""
        import json, warnings, torch, ops_dcnv3
        from ops_dcnv3 import extension

        def registered():
            names = ("dcnv3", "dcnv3_backward", "dcnv3_packed", "dcnv3_packed_backward")
            has = torch._C._dispatch_has_kernel_for_dispatch_key
            return [has(f"ops_dcnv3::{name}", "CUDA") for name in names]

        before = registered()
        warnings.simplefilter("error")
        reason = extension.register_cuda()
        print(json.dumps([before, reason, registered(), torch.cuda.is_initialized()]))
    """)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[False] * 4, "", [True] * 4, False]
    assert "Overriding" not in done.stderr


# ----------------------------------------------------------------------------- OPS_DCNV3_BACKEND


@pytest.mark.parametrize(
    "backend, spoil, reason",
    [
        ("native", lambda m: m.has(V100), "capability 7.0"),
        ("triton", lambda m: m.triton(works="no compiler"), "no compiler"),
    ],
)
def test_a_backend_that_is_asked_for_and_cannot_serve_raises_at_every_call(
    machine, backend, spoil, reason
):
    machine.ask_for(backend)
    spoil(machine)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"OPS_DCNV3_BACKEND={backend}, but .*{reason}"):
            backends.implementation("dcnv3", CUDA_0)


def test_triton_can_be_asked_for_where_the_compiled_kernels_would_serve(machine):
    machine.ask_for("triton")
    assert backends.implementation("dcnv3", CUDA_0) is triton_operator("dcnv3")
    assert ops_dcnv3.extension_info()["missing"]["cuda"] == "OPS_DCNV3_BACKEND=triton"
    assert machine.registered == 0


def test_the_reference_can_be_asked_for_and_does_not_warn(machine):
    machine.ask_for("reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = backends.implementation("dcnv3", CUDA_0)
    assert found is reference_ops.OPERATORS["dcnv3"]
    missing = ops_dcnv3.extension_info()["missing"]
    assert missing["cuda"] == missing["triton"] == "OPS_DCNV3_BACKEND=reference"


def test_the_compiled_kernels_can_be_asked_for(machine):
    machine.ask_for("native")
    backends.implementation("dcnv3", CUDA_0)
    assert machine.registered == 1
    assert ops_dcnv3.extension_info()["missing"]["triton"] == "OPS_DCNV3_BACKEND=native"


def test_devices_of_other_makers_take_the_reference_with_one_warning(monkeypatch):
    backends._warn_slow_device.cache_clear()
    with pytest.warns(RuntimeWarning, match="no xpu kernels in this version") as caught:
        for _ in range(2):
            found = backends.implementation("dcnv3", torch.device("xpu", 0))
    assert found is reference_ops.OPERATORS["dcnv3"] and len(caught) == 1


# ------------------------------------------------------------------ what shows without a first call


@pytest.mark.parametrize(
    "name, value, backend, reason",
    [
        ("hip", "7.0", "cuda", "ROCm"),
        ("cuda", None, "cuda", "CPUs alone"),
        ("cuda", None, "triton", "CPUs alone"),
    ],
)
def test_the_build_of_pytorch_may_rule_a_backend_out(monkeypatch, name, value, backend, reason):
    monkeypatch.setattr(backends, "_choices", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(extension, "cuda_kernels", lambda: CudaKernels(ARCHS, CUDA_13_0, CUDA_13_0))
    monkeypatch.setattr(torch.version, name, value)
    assert reason in ops_dcnv3.extension_info()["missing"][backend]


def test_a_triton_that_is_not_installed_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in backends.why_no_triton()


@pytest.mark.parametrize("present, reason", [(True, ""), (False, "there is no NVIDIA driver")])
def test_triton_needs_a_driver(monkeypatch, present, reason):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(extension, "has_nvidia_driver", lambda: present)
    assert backends.why_no_triton() == reason


def test_a_triton_that_fails_is_a_reason_and_no_error(monkeypatch):
    triton_ops = pytest.importorskip("ops_dcnv3.triton_ops", exc_type=ImportError)

    def fail(device: torch.device) -> None:
        raise RuntimeError("no C compiler\nin a long story")

    monkeypatch.setattr(backends, "why_no_triton", lambda: "")
    monkeypatch.setattr(triton_ops, "probe", fail)
    expected = "Triton does not work here: RuntimeError: no C compiler"
    assert backends._probe_triton(CUDA_0) == expected


def run_script(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process with these environment variables."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True)


@pytest.mark.slow
def test_neither_import_nor_report_starts_cuda_or_triton():
    done = run_script("""
        import json, sys, torch
        before = "triton" in sys.modules
        import ops_dcnv3
        ops_dcnv3.extension_info()
        started = torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()
        loaded = [name for name in ("ops_dcnv3.triton_ops", "triton") if name in sys.modules]
        print(json.dumps([started, [] if before else loaded]))
    """)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [False, []]


@pytest.mark.slow
def test_asking_for_a_triton_that_is_not_there_fails_on_import():
    done = run_script(
        "import sys; sys.modules['triton'] = None; import ops_dcnv3", OPS_DCNV3_BACKEND="triton"
    )
    assert done.returncode != 0
    assert "ImportError: ops_dcnv3: OPS_DCNV3_BACKEND=triton, but Triton" in done.stderr
    assert "pip install triton" in done.stderr
