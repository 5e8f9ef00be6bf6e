"""The GPU benchmark tried on the CPU: its tables, floors, goals and words, all but the clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from benchmark_scripts import FOLDER, imported

import ops_dcnv3

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    *("bench_cuda", "competitors", "cuda_contenders", "cuda_machine", "cuda_model"),
    *("cuda_timing", "goals", "measure", "original_design", "workloads"),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's files by name; they are scripts, not a package."""
    with imported(*MODULES) as modules:
        yield modules


@pytest.fixture
def bench(benchmarks):
    """On small layers and the clock of the host; judged as on the GPU of the goals."""
    layer = benchmarks["workloads"].Layer
    return benchmarks["bench_cuda"].Bench(
        CPU,
        benchmarks["cuda_timing"].HostTimer(),
        benchmarks["measure"].Effort(1, 1, 0.0),
        quick=False,
        judged=True,
        bandwidth=1e9,
        layers=[layer("stage 1", 2, 5, 32, 2), layer("stage 4", 1, 4, 64, 4)],
        wide=layer("wide", 2, 4, 64, 2),
    )


def rows(table) -> list[dict[str, str]]:
    """The rows of a table; of columns with one name, the last."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_the_floor_of_stage_1_is_the_bytes_that_must_move(benchmarks):
    (stage_1, *_) = benchmarks["workloads"].stage_layers(64)
    assert round(stage_1.floor_bytes(torch.float16, "forward") / 1e5) == 947
    assert round(stage_1.floor_bytes(torch.float16, "backward") / 1e6) == 164
    image, offset, logits, grad_output = (
        benchmarks["workloads"].stage_layers(1)[3].tensors(torch.float32, CPU)
    )
    moved = sum(t.nbytes for t in (image, offset, logits, grad_output))  # an output like the last
    assert benchmarks["workloads"].stage_layers(1)[3].floor_bytes(torch.float32, "forward") == moved


def test_a_record_names_the_release_of_the_nvcc_that_a_build_would_take(
    benchmarks, monkeypatch, tmp_path
):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    machine = benchmarks["cuda_machine"]
    missing = f"unknown (no nvcc: CUDA_HOME is {str(tmp_path)!r}, which has no bin/nvcc)"
    assert machine.release_of_nvcc() == missing
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.9, V12.9.1'\n")
    nvcc.chmod(0o755)
    assert machine.release_of_nvcc() == "12.9"


def test_every_contender_that_runs_here_computes_the_same_numbers(benchmarks, bench):
    contenders, layer = benchmarks["cuda_contenders"], bench.layers[0]
    for direction in ("forward", "backward"):
        a = contenders.Arguments(*layer.tensors(torch.float32, CPU))
        expected = contenders.ours(layer, direction, a)()
        expected = expected if isinstance(expected, tuple) else (expected,)
        for name, contender in (
            (c.name, c) for c in benchmarks["bench_cuda"].the_contenders(bench, layer)
        ):
            if name in ("Triton", "DCNv4"):
                continue
            results = contender.results(contender.make(layer, direction, a)())
            assert contenders.same_numbers(results, expected, torch.float32), (name, direction)
            wrong = tuple(r * 1.01 for r in results)
            assert not contenders.same_numbers(wrong, expected, torch.float32)
            nan = tuple(r * torch.nan for r in results)
            assert not contenders.same_numbers(nan, expected, torch.float32)
        cut = tuple(r[:1] for r in expected)
        assert not contenders.same_numbers(cut, expected, torch.float32)
        assert not contenders.same_numbers((), expected, torch.float32)


def test_the_original_s_steps_around_its_kernels_give_the_gradient_of_the_logits(
    benchmarks, bench, monkeypatch
):
    """The kernels are tested elsewhere; here the reference stands in for them."""
    original_design, layer = benchmarks["original_design"], bench.layers[0]
    groups = layer.groups

    class OnTheReference(original_design.OriginalDesign):
        def __init__(self) -> None:
            pass

        def _launch(self, function, image, groups, *tensors):
            geometry = benchmarks["cuda_contenders"].geometry_of(layer)
            if function == "original_forward":
                image, offset, mask, output = tensors
                mask = mask.reshape(*offset.shape[:3], -1)
                result = ops_dcnv3.reference.forward(image, offset, mask, geometry, False)
                output.copy_(result)
            else:
                results = ops_dcnv3.reference.backward(*tensors[:4], geometry, False)
                for target, result in zip(tensors[4:], results, strict=True):
                    target += result

    bench.original = OnTheReference()
    (original,) = [
        c for c in benchmarks["bench_cuda"].the_contenders(bench, layer) if c.name == "original"
    ]
    contenders = benchmarks["cuda_contenders"]
    a = contenders.Arguments(*layer.tensors(torch.float32, CPU))
    assert groups == 2
    for direction in ("forward", "backward"):
        expected = contenders.ours(layer, direction, a)()
        expected = expected if isinstance(expected, tuple) else (expected,)
        results = original.results(original.make(layer, direction, a)())
        assert len(results) == len(expected)
        assert contenders.same_numbers(results, expected, torch.float32)


@pytest.mark.parametrize(
    "seconds, forward, backward", [(44e-6, "met", "met"), (60e-6, "missed", "missed")]
)
def test_tables_have_every_layer_and_dtype_and_judge_by_the_number_beside(
    benchmarks, bench, monkeypatch, seconds, forward, backward
):
    for way in ("captured", "ahead", "eager"):
        monkeypatch.setattr(bench.timer, way, lambda calls: lambda: seconds, raising=True)
    tables = list(benchmarks["bench_cuda"].table_stages(bench))
    for table, direction, verdict in (
        (tables[0], "forward", forward),
        (tables[2], "backward", backward),
    ):
        assert len(rows(table)) == 2 * 3
        for row in rows(table):
            layer = bench.layers["stage 4" in row["layer"]]
            nbytes = layer.floor_bytes(getattr(torch, row["dtype"]), direction)  # at 1 GB/s
            assert float(row["floor us"]) == pytest.approx(nbytes / 1e3, abs=0.01)
            assert float(row["times the floor"]) == pytest.approx(seconds * 1e9 / nbytes, abs=0.01)
            assert float(row["us"]) == float(row["eager us"]) == pytest.approx(seconds * 1e6)
            judged = layer.batch > 1 and row["dtype"] != "float32"
            assert row["verdict"] == (verdict if judged else "-")


@pytest.mark.parametrize(
    "name, dtype, direction, us, floors, expected",
    [
        ("stage 1", torch.float16, "forward", 45.0, 9.0, ("<= 45.00 us", "met")),
        ("stage 1", torch.bfloat16, "forward", 45.1, 1.0, ("<= 45.00 us", "missed")),
        ("stage 2", torch.float16, "forward", 99.0, 2.2, ("<= 2.20 floors", "met")),
        ("stage 4", torch.float16, "forward", 1.0, 2.3, ("<= 2.20 floors", "missed")),
        ("stage 1", torch.float16, "backward", 99.0, 2.5, ("<= 2.50 floors", "met")),
        ("stage 3", torch.float32, "forward", 1.0, 1.0, ("-", "-")),
        ("wide", torch.float16, "forward", 99.0, 9.0, ("<= 100.00 us", "met")),
        ("wide", torch.bfloat16, "forward", 99.0, 9.0, ("-", "-")),
    ],
)
def test_goals_are_those_of_the_layer_dtype_and_direction(
    benchmarks, bench, name, dtype, direction, us, floors, expected
):
    bench_cuda = benchmarks["bench_cuda"]
    layer = bench.wide if name == "wide" else benchmarks["workloads"].Layer(name, 64, 7, 64, 4)
    arguments = (layer, dtype, direction, us, floors)
    assert bench_cuda.judge_ours(bench, *arguments) == expected
    bench.judged = False  # another GPU
    assert bench_cuda.judge_ours(bench, *arguments) == ("-", "-")
    assert bench_cuda.judge_times(bench, 9.0, 8.0) == ("-", "-")


def test_a_contender_leaves_a_time_or_a_word(benchmarks, bench, monkeypatch, capsys):
    contenders = benchmarks["cuda_contenders"]
    right = contenders.plain_pytorch

    def lacks(layer, direction, a):
        raise ModuleNotFoundError("No module named 'DCNv4'")

    def breaks(layer, direction, a):
        raise RuntimeError("a planted error")

    def computes_something_else(layer, direction, a):
        call = right(layer, direction, a)
        return lambda: call() * 1.5

    def takes_too_much(layer, direction, a):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(contenders, "dcnv4", lacks)
    monkeypatch.setattr(contenders, "triton", breaks)
    monkeypatch.setattr(contenders, "torchvision", takes_too_much)
    monkeypatch.setattr(contenders, "plain_pytorch", computes_something_else)
    _, others, *_ = benchmarks["bench_cuda"].operator_tables(bench, bench.layers[:1], "title")
    row = rows(others)[0]
    found = [row[f"{name} us"] for name in ("Triton", "DCNv4", "torchvision", "reference")]
    assert found == ["fails", "absent", "no memory", "wrong"]
    assert "a planted error" in capsys.readouterr().err
    assert row["original us"] == "-"


def test_a_fault_of_our_own_operator_ends_the_run(benchmarks, bench, monkeypatch):
    def breaks(*tensors, **settings):
        raise RuntimeError("a planted error")

    monkeypatch.setattr(ops_dcnv3, "dcnv3", breaks)
    with pytest.raises(RuntimeError, match="a planted error"):
        benchmarks["bench_cuda"].measure(bench, bench.layers[0], torch.float32, "forward")


def tiny_model() -> torch.nn.Module:
    """Something that takes images of 16 x 16 and gives a thousand logits."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Flatten(), torch.nn.Linear(128, 1000)
    )


@pytest.fixture
def models(benchmarks, monkeypatch) -> ModuleType:
    """`cuda_model` with small models and without the compiler."""
    module = benchmarks["cuda_model"]
    monkeypatch.setattr(module, "internimage_t", tiny_model)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    return module


@pytest.mark.parametrize("direction", ["inference", "training step"])
@pytest.mark.parametrize("with_timm", [True, False])
def test_the_table_of_whole_models_has_images_a_second(
    benchmarks, models, monkeypatch, with_timm, direction
):
    if with_timm:
        monkeypatch.setattr(models, "convnext_t", tiny_model)
    else:
        monkeypatch.setitem(sys.modules, "timm", None)
    timer, effort = benchmarks["cuda_timing"].HostTimer(), benchmarks["measure"].Effort(1, 1, 0.0)
    (table,) = models.table_model(direction, CPU, timer, effort, quick=False, batch=2, side=16)
    ours = [row for row in rows(table) if row["model"] == models.OURS]
    others = [row for row in rows(table) if row["model"] == models.THEIRS]
    assert direction in table.title
    assert [row["how"] for row in ours] == ["eager", "compiled"]
    assert all(float(row["images a second"]) > 0 for row in ours)
    if with_timm:
        assert {row["times ConvNeXt-T"] for row in others} == {"1.00"}
    else:
        assert {row["images a second"] for row in others} == {"absent (timm)"}
        assert {row["times ConvNeXt-T"] for row in ours} == {"-"}


def test_a_model_whose_loss_is_not_finite_is_an_error(benchmarks):
    def broken() -> torch.nn.Module:
        model = tiny_model()
        torch.nn.init.constant_(model[0].weight, torch.nan)
        return model

    model = benchmarks["cuda_model"]
    timer = benchmarks["cuda_timing"].HostTimer()
    with pytest.raises(RuntimeError, match="not finite"):
        model.prepare(
            "broken", broken, model.make_step, timer, torch.zeros(2, 3, 16, 16), compiled=False
        )


def test_a_record_names_command_machine_and_bandwidth_and_can_be_added_to(
    benchmarks, bench, monkeypatch, tmp_path, capsys
):
    bench_cuda, path = benchmarks["bench_cuda"], tmp_path / "records" / "gpu.md"
    monkeypatch.setattr(bench_cuda, "set_up", lambda args: bench)
    for only, more in (("wide", []), ("stages", ["--append"])):
        arguments = ["bench_cuda.py", "--only", only, "--markdown", str(path), *more]
        monkeypatch.setattr(sys, "argv", arguments)
        bench_cuda.main()
    record = path.read_text()
    assert record.startswith("# The DCNv3 operator on a GPU\n")
    assert record.count("# The DCNv3 operator") == 1
    assert record.count("--only") == 2 and record.count("- copy: 1 GB/s") == 2
    assert f"PyTorch {torch.__version__}" in record and "- backends: " in record
    for title in (
        "56x56x128, forward",
        "56x56x128, backward",
        "224 px, forward",
        "224 px, backward",
    ):
        assert f"{title}\n" in record and f"{title}, against others\n" in record
    assert "\n\n\n" not in record and record.endswith("|\n")


@pytest.mark.slow
def test_the_whole_model_is_built_where_safetensors_is_missing():
    code = (
        f"import sys; sys.modules['safetensors'] = None; sys.path[:0] = ['.', {str(FOLDER)!r}]; "
        "from workloads import internimage_t; model = internimage_t(); "
        "print(type(model).__name__, model.levels[0].blocks[0].dcn.offset.weight.std().item() > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["InternImage", "True"]


def test_without_a_gpu_the_benchmark_ends_with_one_line(benchmarks, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.setattr(sys, "argv", ["bench_cuda.py"])
    with pytest.raises(SystemExit, match="expected a CUDA device, found none"):
        benchmarks["bench_cuda"].main()
