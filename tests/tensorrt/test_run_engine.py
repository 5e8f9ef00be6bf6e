"""run_engine.py: images, benchmark and comparison, with ONNX Runtime in the engine's place.

What TensorRT and CUDA do is not shown by any of this; see tensorrt/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import loaded_engine
import run_engine
from comparison import SHORT, WHOLE
from cuda_memory import Cuda
from engine_files import EngineFacts, facts_path, read_facts, write_engine
from internimage.runtime import parse_metadata
from internimage.runtime.command import main as run_onnx
from latency import ORIGINAL_FPS, WARM_UP, Latencies, row
from loaded_engine import Engine
from nvidia_runtime import Runtime
from tests.tensorrt.small_models import CLASSES, SIDE, metadata_text, save_classifier
from tests.tensorrt.stand_in_cudart import StandInCudart
from tests.tensorrt.stand_in_nvidia import module_of

SMALLEST, USUAL, LARGEST = (1, 3, SIDE, SIDE), (2, 3, SIDE, SIDE), (4, 3, SIDE, SIDE)
FACTS = EngineFacts(
    runtime="tensorrt", version="11.1.0", typing="strong", tf32=True, profiles=(),
    needs_plugin=False, metadata=metadata_text(),
)  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "model.onnx")


@pytest.fixture
def write(tmp_path: Path, model: Path) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        path = tmp_path / "model.engine"
        facts = EngineFacts(**(vars(FACTS) | changes))
        write_engine(path, changes.pop("plan", model.read_bytes()), facts)
        return path

    return make


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> StandInCudart:
    """A machine with a GPU and TensorRT 11."""
    library = StandInCudart()
    use(monkeypatch, library)
    return library


def use(monkeypatch: pytest.MonkeyPatch, library: StandInCudart, **settings: Any) -> None:
    profiles = settings.pop("profiles", {"input": (SMALLEST, USUAL, LARGEST)})
    module = module_of(profiles=profiles, **settings)
    monkeypatch.setattr(run_engine, "open_cuda", lambda: Cuda(library))
    monkeypatch.setattr(run_engine, "choose_runtime", lambda name: Runtime(name, module))


def open_engine(path: Path, **settings: Any) -> Engine:
    module = module_of(profiles={"input": (SMALLEST, USUAL, LARGEST)}, **settings)
    return Engine(Runtime("tensorrt", module), path, Cuda(StandInCudart()))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def expected_logits(model: Path, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(str(model)).run(None, {"input": pixels})[0]


def test_an_engine_runs_every_batch_within_its_profile(model: Path, write: Callable[..., Path]):
    engine = open_engine(write())
    random = np.random.default_rng(0)
    for batch in (2, 4, 1, 3):
        pixels = random.standard_normal((batch, 3, SIDE, SIDE)).astype(np.float32)
        found = engine.run({"input": pixels})
        assert np.array_equal(found["logits"], expected_logits(model, pixels))


def test_results_do_not_change_with_the_next_run(write: Callable[..., Path]):
    engine = open_engine(write())
    ones = np.ones((1, 3, SIDE, SIDE), np.float32)
    first = engine.run({"input": ones})["logits"]
    kept = first.copy()
    engine.run({"input": 2 * ones})
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "expected the inputs input for"),
        ({"input": np.zeros(SMALLEST), "x": np.zeros(1)}, "got input, x"),
        ({"input": np.zeros((5, 3, SIDE, SIDE), np.float32)}, "got 5x3x8x8; --profile"),
        (
            {"input": np.zeros((1, 3, SIDE, 9), np.float32)},
            "expected input=1x3x8x8:2x3x8x8:4x3x8x8",
        ),
        ({"input": np.zeros((3, SIDE, SIDE), np.float32)}, "got 3x8x8"),
    ],
)
def test_inputs_that_the_engine_cannot_take_are_refused(
    write: Callable[..., Path], inputs: dict[str, np.ndarray], words: str
):
    with pytest.raises(ValueError, match="expected") as caught:
        open_engine(write()).run(inputs)
    assert words in str(caught.value)


def test_an_engine_that_fails_says_so(write: Callable[..., Path]):
    with pytest.raises(ValueError, match="cannot be run: it gives no reason"):
        open_engine(write(), fails=True).run({"input": np.zeros(SMALLEST, np.float32)})


def test_images_get_the_answers_that_the_onnx_file_gives(
    model: Path,
    write: Callable[..., Path],
    device: StandInCudart,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert run_onnx([str(model), str(photo), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["answers"]
    assert run_engine.main([str(write()), str(photo), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == expected
    assert len(expected[0]["labels"]) == len(CLASSES)


def test_one_unreadable_image_costs_the_others_nothing(
    write: Callable[..., Path],
    device: StandInCudart,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert run_engine.main([str(write()), str(tmp_path / "broken.png"), str(photo)]) == 2
    printed = capsys.readouterr()
    assert "photo.png" in printed.out
    assert printed.err.count("\n") == 1


def test_the_benchmark_prints_a_row_of_the_table(
    write: Callable[..., Path], device: StandInCudart, capsys: pytest.CaptureFixture[str]
):
    assert run_engine.main([str(write()), "--benchmark", "--iterations", "3"]) == 0
    head, line, cells = (
        [cell.strip() for cell in printed.strip("|\n").split("|")]
        for printed in capsys.readouterr().out.splitlines()
    )
    assert set("".join(line)) == {"-"}
    found = dict(zip(head, cells, strict=True))
    assert found["model"] == "internimage_t_1k_224"
    assert found["resolution"] == "8x8"
    assert found["batch"] == "2"
    assert found["types"] == "fp32 (TF32)"
    assert found["device"] == "Stand-in GPU"
    # the stand-in's clock goes on by one millisecond with each event
    assert (found["latency ms"], found["copies ms"], found["FPS"]) == ("1.00", "2.00", "2000")
    assert device.calls.count("cudaEventRecord") == 4 * (WARM_UP + 3)


def test_figures_of_a_row_are_those_of_the_runs():
    latencies = Latencies(model=[10.0, 4.0, 5.0, 6.0], copies=[1.0] * 4, batch=1)
    assert (latencies.median, latencies.p99) == (5.5, 10.0)
    assert latencies.fps == pytest.approx(1000 / 5.5)
    many = Latencies(model=[float(k) for k in range(1, 201)], copies=[0.0] * 200, batch=8)
    assert many.p99 == 198.0
    assert many.fps == pytest.approx(8000 / 100.5)


@pytest.mark.parametrize(
    ("model_name", "side", "batch", "original"),
    [
        ("internimage_t_1k_224", 224, 1, "156"),
        ("internimage_xl_22kto1k_384", 384, 1, "47"),
        ("internimage_t_1k_224", 256, 1, "-"),
        ("internimage_t_1k_224", 224, 8, "-"),
        ("another", 224, 1, "-"),
    ],
)
def test_the_originals_figure_stands_beside_the_same_model_size_and_batch(
    model_name: str, side: int, batch: int, original: str
):
    latencies = Latencies([5.0], [1.0], batch)
    cells = row(latencies, model=model_name, resolution=(side, side), types="fp16", device="")
    assert cells[-2] == original
    assert len(ORIGINAL_FPS) == 5


@pytest.mark.parametrize("on_images", [False, True])
def test_the_comparison_prints_the_difference_of_every_output(
    model: Path,
    write: Callable[..., Path],
    device: StandInCudart,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    on_images: bool,
):
    images = [str(photo)] if on_images else []
    assert run_engine.main([str(write()), *images, "--check", str(model)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "logits: 0.00e+00"
    assert (len(printed) > 1) == on_images


def test_a_model_that_answers_otherwise_ends_the_comparison_with_an_error(
    write: Callable[..., Path],
    device: StandInCudart,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    other = save_classifier(tmp_path / "other.onnx", scale=1.05)
    assert run_engine.main([str(write()), "--check", str(other)]) == 2
    error = capsys.readouterr().err
    assert "expected a difference of logits <= 0.02, got 4.76e-02" in error
    assert run_engine.main([str(write()), "--check", str(other), "--tolerance", "0.1"]) == 0
    for wrong in ("0", "-1", "nan"):
        assert run_engine.main([str(write()), "--check", str(other), f"--tolerance={wrong}"]) == 2
        assert f"expected --tolerance > 0, got {wrong}" in capsys.readouterr().err


def test_an_engine_of_whole_float32_products_is_held_to_less():
    metadata = parse_metadata(metadata_text(), origin="here")
    assert run_engine.tolerance_of(FACTS, metadata) == SHORT
    whole = EngineFacts(**(vars(FACTS) | {"tf32": False}))
    assert run_engine.tolerance_of(whole, metadata) == WHOLE
    half = parse_metadata(metadata_text(precision="fp16"), origin="here")
    assert run_engine.tolerance_of(whole, half) == SHORT


def test_inputs_that_no_image_gives_are_zeros(
    device: StandInCudart,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., Path],
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """As the time and the place of a picture."""
    model = save_classifier(tmp_path / "places.onnx", with_places=True)
    sizes = {"input": (SMALLEST, USUAL, LARGEST), "places": ((1, 3), (2, 3), (4, 3))}
    use(monkeypatch, device, profiles=sizes)
    path = write()
    path.write_bytes(model.read_bytes())
    assert run_engine.main([str(path), str(photo), "--check", str(model), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["answers"][0]["labels"]
    assert printed.err == "logits: 0.00e+00\n"
    assert run_engine.main([str(path), "--benchmark", "--iterations", "1"]) == 0


def test_an_engine_whose_input_is_no_image_cannot_be_timed(
    device: StandInCudart,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
):
    use(monkeypatch, device, profiles={"input": ((), (), ())})
    line = fails([str(write(metadata=None)), "--benchmark"], capsys)
    assert "expected an engine whose first input is (N, C, H, W), got input of no size" in line


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the script, which must end with one line and exit code 2; return the line."""
    assert run_engine.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--benchmark", "--tolerance", "0.1"], "--tolerance has no effect without --check"),
        (["--check", "MODEL", "--iterations", "3"], "--iterations has no effect without --bench"),
        (
            ["--check", "MODEL", "--output", "x", "--json", "--topk", "2", "--score-threshold=0"],
            "--output, --json, --topk, --score-threshold has no effect without IMAGE...",
        ),
        (["--check", "MODEL", "--plugin", "x.so"], "--plugin has no effect on"),
    ],
)
def test_a_flag_without_effect_warns(
    model: Path,
    write: Callable[..., Path],
    device: StandInCudart,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: str,
):
    flags = [str(model) if flag == "MODEL" else flag for flag in flags]
    assert run_engine.main([str(write()), *flags]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert f"run_engine.py: warning: {words}" in warned[0]


def test_with_json_standard_output_is_json_alone(
    model: Path,
    write: Callable[..., Path],
    device: StandInCudart,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
):
    flags = ["--json", "--benchmark", "--check", str(model)]
    assert run_engine.main([str(write()), str(photo), *flags]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["answers"][0]["labels"]
    assert "| model " in printed.err
    assert printed.err.endswith("logits: 0.00e+00\n")
    assert "warning" not in printed.err


def test_nothing_to_do_is_a_mistake(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    assert "expected IMAGE..., --benchmark or --check" in fails([str(write())], capsys)


def test_a_missing_engine_or_its_facts_are_named(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = str(tmp_path / "none.engine")
    assert "build_engine.py builds one" in fails([missing, "--benchmark"], capsys)
    path = write()
    for text in ("{}", "[1", facts_path(path).read_text().replace('"tensorrt"', '"os"')):
        facts_path(path).write_text(text)
        assert "expected the facts of an engine" in fails([str(path), "--benchmark"], capsys)
    facts_path(path).unlink()
    assert "copy both files" in fails([str(path), "--benchmark"], capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"needs_plugin": True}, "expected --plugin LIB.so for"),
        ({"version": "10.3.0"}, "expected tensorrt 10.3.0, which has built"),
        ({"plan": b"another version's"}, "the plan is of another version; build it again here"),
    ],
)
def test_an_engine_that_cannot_run_here_is_refused(
    write: Callable[..., Path],
    device: StandInCudart,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: str,
):
    plan = changes.pop("plan", None)
    path = write(**changes)
    if plan is not None:
        path.write_bytes(plan)
    assert words in fails([str(path), "--benchmark"], capsys)


def test_without_a_driver_the_library_says_why(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    use(monkeypatch, StandInCudart(), starts=False)
    words = fails([str(write()), "--benchmark"], capsys)
    assert "cannot start on this machine: CUDA initialization failure" in words


def test_an_engine_of_another_projects_model_can_only_be_timed(
    write: Callable[..., Path],
    device: StandInCudart,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
):
    path = write(metadata=None)
    assert "only --benchmark works" in fails([str(path), str(photo)], capsys)
    assert run_engine.main([str(path), "--benchmark", "--iterations", "1"]) == 0
    assert "| model " in capsys.readouterr().out


def test_facts_are_read_as_they_were_written(write: Callable[..., Path]):
    assert read_facts(write(profiles=("input=1x3:1x3:1x3",))) == EngineFacts(
        **(vars(FACTS) | {"profiles": ("input=1x3:1x3:1x3",)})
    )


def test_an_output_of_unknown_size_is_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine(write())
    monkeypatch.setattr(engine._context, "get_tensor_shape", lambda name: (-1, 5))
    with pytest.raises(ValueError, match="expected outputs whose size follows from the inputs'"):
        engine.run({"input": np.zeros(SMALLEST, np.float32)})
    assert loaded_engine.OPEN == -1
