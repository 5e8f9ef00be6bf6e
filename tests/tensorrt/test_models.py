"""TensorRT for RTX parses and builds the exported models, and samples as they mean it.

DCNv3 without a plugin stands or falls with GridSample's mode: a parser that does not know the name
of a mode takes the nearest pixel, and says nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.exported_models import NUM_BLOCKS, Exported

ROOT = Path(__file__).resolve().parents[2]
SESSION = Path(__file__).with_name("rtx_session.py")
WHOLE = (
    "classifier", "classifier dynamic", "classifier half", "mask_rcnn loops", "cascade loops",
    "dino", "upernet", "upernet dynamic", "segformer", "mask2former",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="tensorrt_rtx is not installed: pip install tensorrt-rtx",
    ),
]


def examine(path: Path) -> dict[str, Any]:
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tensorrt")])
    done = subprocess.run(
        [sys.executable, str(SESSION), str(path)],
        env=os.environ | {"PYTHONPATH": folders},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def count(path: Path, operator: str) -> int:
    """Nodes of an ONNX file; those in functions and branches do not occur here."""
    return Counter(node.op_type for node in onnx.load(path).graph.node)[operator]


def assert_built(found: dict[str, Any], path: Path) -> None:
    assert "refused" not in found, found["refused"]
    assert found["bytes"] > 0, found["errors"]
    assert len(found["samples"]) == count(path, "GridSample") >= NUM_BLOCKS
    # bilinear, zeros outside, corners of pixels; in float32 in half models too
    assert all(sample == ["LINEAR", "FILL", False, "FLOAT"] for sample in found["samples"])


@pytest.mark.parametrize("kind", WHOLE)
def test_a_model_is_built_and_every_sampling_is_bilinear_with_zeros_outside(
    exported: Exported, kind: str
):
    path = exported(kind)
    found = examine(path)
    assert_built(found, path)
    if "classifier" in kind:
        assert len(found["samples"]) == NUM_BLOCKS
        assert found["halves"] == (found["matrices"] if "half" in kind else 0)
    if kind == "classifier dynamic":
        assert found["profiles"] == ["input=1x3x64x64:1x3x64x64:8x3x64x64"]


def test_only_loops_bring_an_rcnn_into_rtx(exported: Exported):
    """Its RoiAlign is a plugin that asks for a GPU; NonMaxSuppression it cannot build at all."""
    assert "RoiAlign" in examine(exported("mask_rcnn"))["refused"]
    for kind in ("mask_rcnn loops", "cascade loops"):
        kinds = {node.op_type for node in onnx.load(exported(kind)).graph.node}
        assert "Loop" in kinds and not kinds & {"RoiAlign", "NonMaxSuppression"}
