"""build_engine.py: engines of small models by TensorRT for RTX, and every way to be refused.

RTX builds for a named compute capability without a GPU. TensorRT 10 and 11 have a stand-in.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import build_engine
import building
from building import BuildOptions
from engine_files import facts_path, read_facts, write_engine
from nvidia_runtime import Runtime
from tests.disks import files_of_at_most
from tests.tensorrt.small_models import (
    metadata_text,
    save_classifier,
    save_model,
    save_plugin_model,
)
from tests.tensorrt.stand_in_nvidia import module_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tensorrt" / "build_engine.py"

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed: pip install tensorrt-rtx",
)


def build(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script as from a shell, on RTX, for a GPU that need not be here."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments), "--runtime", "tensorrt_rtx",
         "--compute-capability", "8.6"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )  # fmt: skip


def refusal(*arguments: object) -> str:
    """The one line that a build ends with."""
    done = build(*arguments)
    assert done.returncode == 2, done.stdout
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("build_engine.py: error: ")
    return line


@needs_rtx
def test_an_engine_is_built_with_its_facts_beside_it(tmp_path: Path):
    model, engine = save_classifier(tmp_path / "m.onnx"), tmp_path / "m.engine"
    done = build(model, "--output", engine, "--workspace", 64, "--no-tf32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{engine}: ")
    assert "input=1x3x8x8:1x3x8x8:8x3x8x8, built in" in done.stdout
    assert engine.stat().st_size > 0
    facts = read_facts(engine)
    assert facts.runtime == "tensorrt_rtx"
    assert facts.profiles == ("input=1x3x8x8:1x3x8x8:8x3x8x8",)
    assert facts.metadata == metadata_text()
    assert not facts.tf32
    again = build(model, "--output", engine, "--timing-cache", tmp_path / "timing.cache")
    assert again.returncode == 0, again.stderr
    assert "warning: --timing-cache has no effect with TensorRT for RTX" in again.stderr
    assert read_facts(engine).tf32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.engine", "m.engine.json", "m.onnx"]


@needs_rtx
def test_on_a_machine_without_a_gpu_an_engine_is_not_run_and_the_line_says_why(tmp_path: Path):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA driver")
    model, engine = save_classifier(tmp_path / "m.onnx"), tmp_path / "m.engine"
    assert build(model, "--output", engine).returncode == 0
    script = SCRIPT.with_name("run_engine.py")
    done = subprocess.run(
        [sys.executable, str(script), str(engine), "--benchmark"], capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("run_engine.py: error: ")
    assert "GPU" in line or "libcudart" in line


@needs_rtx
def test_sizes_from_the_command_line_are_those_of_the_engine(tmp_path: Path):
    model = save_classifier(tmp_path / "m.onnx", metadata=None, side="side")
    assert "since the input has open axes" in refusal(model, "--output", tmp_path / "m.engine")
    profile = "input=1x3x4x4:2x3x8x8:4x3x16x16"
    done = build(model, "--output", tmp_path / "m.engine", "--profile", profile)
    assert done.returncode == 0, done.stderr
    assert profile in done.stdout
    assert read_facts(tmp_path / "m.engine").metadata is None


@needs_rtx
def test_a_profile_that_excludes_the_test_size_leaves_the_old_engine_alone(tmp_path: Path):
    model, engine = save_classifier(tmp_path / "m.onnx", side="side"), tmp_path / "m.engine"
    engine.write_bytes(b"old")
    line = refusal(model, "--output", engine, "--profile", "input=1x3x16x16")
    assert "expected a profile that includes the model's test size, 8 x 8" in line
    assert engine.read_bytes() == b"old"
    assert not facts_path(engine).exists()


@pytest.mark.parametrize(("is_rtx", "advised"), [(True, True), (False, False)])
def test_r_cnns_for_rtx_are_to_be_exported_with_loops(is_rtx: bool, advised: bool):
    error = SimpleNamespace(
        node_operator=lambda: "RoiAlign", node_name=lambda: "node", desc=lambda: "no plugin"
    )
    parser = SimpleNamespace(num_errors=1, get_error=lambda _: error)
    runtime = SimpleNamespace(takes_plugins=not is_rtx, title="TensorRT")
    options = BuildOptions(model=Path("d.onnx"), output=Path("d.engine"))
    refused: Any = building._refusal(parser, None, runtime, options)  # type: ignore[arg-type]
    assert ("export with --boxes loops" in str(refused)) == advised
    assert refused.lines == ["RoiAlign node: no plugin"]


@needs_rtx
def test_nodes_that_the_parser_refuses_are_listed_one_a_line(tmp_path: Path):
    nodes = [
        helper.make_node("Unheard", ["input"], ["a"], "first/node", domain="somewhere"),
        helper.make_node("Nowhere", ["a"], ["logits"], "second/node", domain="somewhere"),
    ]
    kind: dict[str, Any] = {"input": (TensorProto.FLOAT, [1, 3])}
    model = save_model(
        tmp_path / "m.onnx", nodes, {"w": np.zeros(1, np.float32)}, inputs=kind,
        outputs={"logits": (TensorProto.FLOAT, [1, 3])}, metadata=None,
    )  # fmt: skip
    done = build(model, "--output", tmp_path / "m.engine")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0].startswith("build_engine.py: Unheard first/node: ")
    assert lines[-1].startswith("build_engine.py: error: TensorRT for RTX ")
    assert sum(" cannot parse " in line for line in lines) == 1
    assert not (tmp_path / "m.engine").exists()


@needs_rtx
@pytest.mark.parametrize("metadata", [None, metadata_text(operator="node")])
def test_plugin_nodes_are_refused_on_rtx_before_its_parser_meets_them(
    tmp_path: Path, metadata: str | None
):
    model = save_plugin_model(tmp_path / "m.onnx", metadata=metadata)
    line = refusal(model, "--output", tmp_path / "m.engine")
    assert "expected a model without plugin nodes for TensorRT for RTX" in line


@needs_rtx
def test_files_that_are_no_models_and_places_that_cannot_be_written_are_refused(tmp_path: Path):
    engine = tmp_path / "m.engine"
    assert "expected an ONNX file, got none at" in refusal(tmp_path / "none", "--output", engine)
    (tmp_path / "text.onnx").write_text("no model")
    assert "expected an ONNX file" in refusal(tmp_path / "text.onnx", "--output", engine)
    model = save_classifier(tmp_path / "m.onnx")
    missing = tmp_path / "missing" / "m.engine"
    assert "expected an existing folder for" in refusal(model, "--output", missing)
    assert "got the folder" in refusal(model, "--output", tmp_path)


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The line of a mistake that needs no library of NVIDIA's."""
    assert build_engine.main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: MODEL.onnx, --output"),
        (["m.onnx"], "required: --output"),
        (["m.onnx", "--output", "e", "--runtime", "cuda"], "invalid choice: 'cuda'"),
        (["m.onnx", "--output", "e", "--workspace", "0"], "expected a whole number >= 1"),
        (["m.onnx", "--output", "e", "--compute-capability", "86"], "as 8.6, got '86'"),
        (["m.onnx", "--output", "e", "--profile", "x"], "expected --profile NAME=MIN:OPT:MAX"),
        (["m.onnx", "--output", "e", "--optimization-level", "9"], "invalid choice"),
        (["m.onnx", "--output", "e", "--profil", "x"], "did you mean --profile?"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    assert words in in_process(capsys, *arguments)


def test_without_the_library_the_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    model = save_classifier(tmp_path / "m.onnx")
    line = in_process(capsys, model, "--output", tmp_path / "m.engine")
    assert "pip install tensorrt" in line


# ---- TensorRT 10 and 11, by a stand-in ----


def options_of(folder: Path, **changes: Any) -> BuildOptions:
    model = save_classifier(folder / "m.onnx", batch=1)
    return BuildOptions(model, folder / "m.engine", **changes)


def test_models_keep_their_own_types_and_tensorrt_10_may_choose_float16_instead(tmp_path: Path):
    ten, eleven = module_of("10.16.1"), module_of("11.1.0")
    building.build_engine(Runtime("tensorrt", ten), options_of(tmp_path))
    assert ten.settings == [("network", 1 << 1)]
    ten.settings.clear()
    building.build_engine(Runtime("tensorrt", ten), options_of(tmp_path, fp16=True))
    assert ten.settings == [("network", 0), ("set", ten.BuilderFlag.FP16)]
    assert read_facts(tmp_path / "m.engine").typing == "fp16"
    building.build_engine(Runtime("tensorrt", eleven), options_of(tmp_path, tf32=False))
    assert eleven.settings == [("network", 1 << 1), ("clear", eleven.BuilderFlag.TF32)]
    with pytest.raises(ValueError, match="expected no --fp16 with TensorRT 11.1.0.*--half"):
        building.build_engine(Runtime("tensorrt", eleven), options_of(tmp_path, fp16=True))


def test_the_timing_cache_is_read_and_written_and_never_replaced_by_an_empty_one(tmp_path: Path):
    runtime, cache = Runtime("tensorrt", module_of()), tmp_path / "timing.cache"
    options = options_of(tmp_path, timing_cache=cache)
    building.build_engine(runtime, options)
    assert cache.read_bytes() == b"cache: m.onnx"
    building.build_engine(runtime, options)
    assert cache.read_bytes() == b"cache: m.onnx m.onnx"
    cache.write_bytes(b"of another program")
    with pytest.raises(ValueError, match="expected a timing cache of this GPU and version"):
        building.build_engine(runtime, options)
    assert cache.read_bytes() == b"of another program"


def test_the_workspace_is_given_in_mebibytes(tmp_path: Path):
    module = module_of()
    building.build_engine(Runtime("tensorrt", module), options_of(tmp_path, workspace=3))
    assert ("workspace", 3 * 2**20) in module.settings


def test_only_rtx_builds_for_another_gpu(tmp_path: Path):
    with pytest.raises(ValueError, match="expected no --compute-capability with TensorRT 11"):
        building.build_engine(
            Runtime("tensorrt", module_of()), options_of(tmp_path, compute_capability=(8, 6))
        )


@needs_rtx
def test_a_compute_capability_that_rtx_does_not_know_is_refused(tmp_path: Path):
    command = [sys.executable, str(SCRIPT), str(save_classifier(tmp_path / "m.onnx")), "--output",
               str(tmp_path / "m.engine"), "--compute-capability", "3.5"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected --compute-capability in {7.5, 8.0, 8.6" in done.stderr


def test_a_model_with_plugin_nodes_names_the_way_to_build_the_plugin(tmp_path: Path):
    model = save_plugin_model(tmp_path / "m.onnx", metadata=metadata_text(operator="node"))
    options = BuildOptions(model, tmp_path / "m.engine")
    with pytest.raises(ValueError, match="to build it: cmake -S tensorrt/plugin"):
        building.build_engine(Runtime("tensorrt", module_of()), options)


def test_only_an_engine_of_plugin_nodes_asks_for_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[Path] = []
    monkeypatch.setattr(Runtime, "load_plugin", lambda self, path: loaded.append(path))
    runtime, library = Runtime("tensorrt", module_of()), tmp_path / "plugin.so"
    options = options_of(tmp_path, plugin=library)
    with pytest.warns(UserWarning, match="--plugin has no effect on .*--operator grid_sample"):
        building.build_engine(runtime, options)
    assert not loaded
    assert not read_facts(options.output).needs_plugin
    for metadata in (metadata_text(operator="node"), None):
        save_classifier(options.model, batch=1, metadata=metadata)
        building.build_engine(runtime, options)
        assert loaded.pop() == library
        assert read_facts(options.output).needs_plugin


def test_without_a_driver_the_library_says_why(tmp_path: Path):
    with pytest.raises(OSError, match="TensorRT 11.1.0 cannot start on this machine: CUDA init"):
        building.build_engine(Runtime("tensorrt", module_of(starts=False)), options_of(tmp_path))


def test_an_engine_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = options_of(tmp_path)
    options.output.write_bytes(b"old")

    def full(source: object, target: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        building.build_engine(Runtime("tensorrt", module_of()), options)
    assert options.output.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.engine", "m.onnx"]


@pytest.mark.parametrize("has_old", [False, True])
def test_a_disk_without_room_for_the_engine_leaves_the_facts_of_the_old_one(
    tmp_path: Path, has_old: bool
):
    options = options_of(tmp_path)
    building.build_engine(Runtime("tensorrt", module_of()), options)
    facts = read_facts(options.output)
    if not has_old:
        options.output.unlink()
        facts_path(options.output).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_of_at_most(10_000), pytest.raises(OSError, match=f"{options.output}"):
        write_engine(options.output, bytes(20_000), dataclasses.replace(facts, version="0"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
