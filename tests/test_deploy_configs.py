"""The deploy configs of all tasks: what their names say, and what the original's say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from internimage.integrations.openmmlab.export.deploy_config import (
    CODEBASES,
    read_deploy_config,
)
from tests.config_facts import FIXTURES, ROOT

ORIGINALS: dict[str, dict[str, Any]] = json.loads((FIXTURES / "deploy.json").read_text())

CHANGED = {"onnx_config.opset_version": 17, "operator": "grid_sample"}
"""What ours have in another way: DCNv3 of the original's is a node, which opset 11 can hold."""

LEAVES = sorted(
    path.relative_to(ROOT)
    for task in CODEBASES
    for path in (ROOT / task / "deploy" / "configs").rglob("*.py")
    if "_base_" not in path.parts and re.search("onnxruntime|tensorrt", path.name)
)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a config by their dotted names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_config_of_the_original_is_here_and_says_the_same_but_for_the_operator(name: str):
    ours = dict(flat(Config.fromfile(ROOT / name).to_dict()))
    assert ours == {**dict(flat(ORIGINALS[name])), **CHANGED}


def test_every_task_has_both_backends_in_both_precisions_for_fixed_and_for_open_sizes():
    for folder, prefix in (
        ("classification/deploy/configs", "classification"),
        ("detection/deploy/configs/mmdet/detection", "detection"),
        ("detection/deploy/configs/mmdet/instance-seg", "instance-seg"),
        ("segmentation/deploy/configs/mmseg", "segmentation"),
    ):
        names = [path.name for path in LEAVES if path.parent == Path(folder)]
        for backend in ("onnxruntime", "tensorrt"):
            for precision in ("", "-fp16"):
                for kind in ("static", "dynamic"):
                    start = f"{prefix}_{backend}{precision}_{kind}"
                    assert any(name.startswith(start) for name in names), start


@pytest.mark.parametrize("path", LEAVES, ids=str)
def test_a_config_is_what_its_name_says(path: Path):
    config = read_deploy_config(ROOT / path, task=path.parts[0])
    assert config.backend == ("tensorrt" if "tensorrt" in path.name else "onnxruntime")
    assert config.is_half == ("fp16" in path.name)
    assert ("dynamic_axes" in config.content.onnx_config) == ("dynamic" in path.name)
    assert ("masks" in config.content.onnx_config.output_names) == ("instance-seg" in path.name)
    assert config.operator == "grid_sample"
    assert config.file_name == "end2end.onnx"
    if config.backend == "onnxruntime":
        assert config.engine_arguments == []
        return
    flag, profile, *workspace = config.engine_arguments
    assert flag == "--profile"
    assert workspace == ["--workspace", "1024"]
    found = re.fullmatch(r"input=(?:\d+x3x(\d+x\d+):){2}\d+x3x(\d+x\d+)", profile)
    sizes = re.findall(r"\d+x\d+", path.name)
    assert found is not None
    assert found[2] == sizes[-1]
    assert profile.startswith(f"input=1x3x{sizes[0]}:")
    if "static" in path.name:
        height, width = map(int, sizes[0].split("x"))
        assert config.input_size == (width, height)


def write(folder: Path, base: str, text: str) -> Path:
    path = folder / "deploy.py"
    path.write_text(f"_base_ = [{str(ROOT / base)!r}]\n{text}\n")
    return path


SEGMENTATION = "segmentation/deploy/configs/mmseg/segmentation_onnxruntime_static.py"


@pytest.mark.parametrize(
    ("base", "text", "expected"),
    [
        (SEGMENTATION, "onnx_config = dict(opset_version=11)", "GridSample came with opset 16"),
        (SEGMENTATION, "onnx_config = dict(opset_version=18)", "from 16 to 17 .*got 18"),
        (SEGMENTATION, "operator = 'plugin'", "operator in .*got 'plugin'"),
        (SEGMENTATION, "backend_config = dict(type='ncnn')", "got 'ncnn'"),
        (
            SEGMENTATION,
            "backend_config = dict(common_config=dict(int8_mode=True))",
            "no int8_mode",
        ),
        (SEGMENTATION.replace("onnxruntime_", ""), "", "with a backend_config"),
        (
            "detection/deploy/configs/mmdet/detection/detection_onnxruntime_static.py",
            "",
            "of segmentation .*with 'mmdet': detection/deploy.py takes it",
        ),
        ("segmentation/configs/digit_scenes/upernet_internimage_n.py", "", "a model's config"),
        (SEGMENTATION, "onnx_config = dict(save_file='x.engine')", "'NAME.onnx', .*'x.engine'"),
        (
            SEGMENTATION,
            "onnx_config = dict(save_file='a/x.onnx')",
            "without a folder, .*'a/x.onnx'",
        ),
        (SEGMENTATION, "onnx_config = dict(input_names=None)", "onnx_config.input_names .*None"),
        (SEGMENTATION, "onnx_config = dict(output_names=[])", r"onnx_config.output_names .*\[\]"),
        (SEGMENTATION, "codebase_config = dict(task=None)", "codebase_config.task in .*got none"),
        (SEGMENTATION, "x = 1 / 0", "ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_deploy_config_is_said(
    tmp_path: Path, base: str, text: str, expected: str
):
    with pytest.raises(ValueError, match=expected):
        read_deploy_config(write(tmp_path, base, text), task="segmentation")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("onnx_config = dict(export_params=False)", "onnx_config.export_params = False"),
        (
            "onnx_config = dict(keep_initializers_as_inputs=True)",
            "onnx_config.keep_initializers_as_inputs = True",
        ),
        ("onnx_config = dict(optimize=False)", "onnx_config.optimize = False"),
        (
            "codebase_config = dict(post_processing=dict(background_label_id=0))",
            "codebase_config.post_processing.background_label_id = 0",
        ),
    ],
)
def test_a_setting_that_nothing_reads_warns(tmp_path: Path, text: str, expected: str):
    with pytest.warns(UserWarning, match=f"^{re.escape(expected)} of .* has no effect"):
        read_deploy_config(write(tmp_path, SEGMENTATION, text), task="segmentation")


def test_a_node_for_a_plugin_may_have_the_originals_opset(tmp_path: Path):
    text = "operator = 'node'\nonnx_config = dict(opset_version=11)"
    config = read_deploy_config(write(tmp_path, SEGMENTATION, text), task="segmentation")
    assert (config.operator, config.opset) == ("node", 11)


def test_a_misspelt_name_of_a_deploy_config_gets_the_nearest():
    path = ROOT / SEGMENTATION.replace("static", "statik")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*_onnxruntime_static.py\?"):
        read_deploy_config(path, task="segmentation")
