"""ONNX files of a few nodes, with the metadata of an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
CLASSES = ["cat", "dog", "fish", "bird", "frog"]


def metadata_text(**changes: Any) -> str:
    """A classifier's metadata as JSON."""
    fields = {
        "format": 1, "task": "classification", "model": "internimage_t_1k_224", "version": "0",
        "precision": "fp32", "operator": "grid_sample", "input_size": [SIDE, SIDE], "batch": None,
        "classes": CLASSES, "palette": None, "mean": [120.0] * 3, "std": [60.0] * 3,
        "resize": {"mode": "crop", "shorter_side": SIDE, "size": [SIDE, SIDE],
                   "filter": "bilinear"},
        "window": None, "score_threshold": None, "mask_threshold": None, "reduce_zero_label": None,
    }  # fmt: skip
    return json.dumps(fields | changes)


def save_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    initializers: dict[str, np.ndarray],
    *,
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    metadata: str | None,
) -> Path:
    """Write a model; types and sizes of inputs and outputs by name."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if metadata is not None:
        helper.set_model_props(model, {"internimage": metadata})
    path.write_bytes(model.SerializeToString())
    return path


def save_classifier(
    path: Path,
    *,
    batch: int | str = "batch",
    metadata: str | None = "",
    side: int | str = SIDE,
    scale: float = 1.0,
    with_places: bool = False,
) -> Path:
    """Mean of each channel, to which `places` may be added, then a matrix."""
    weight = np.random.default_rng(0).standard_normal((3, len(CLASSES))).astype(np.float32)
    last = "placed" if with_places else "flat"
    inputs: dict[str, tuple[int, list[int | str]]] = {
        "input": (TensorProto.FLOAT, [batch, 3, side, side])
    }
    if with_places:
        inputs["places"] = (TensorProto.FLOAT, [batch, 3])
    add = [helper.make_node("Add", ["flat", "places"], ["placed"])] if with_places else []
    return save_model(
        path,
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            *add,
            helper.make_node("MatMul", [last, "weight"], ["logits"]),
        ],
        {"weight": np.float32(scale) * weight},
        inputs=inputs,
        outputs={"logits": (TensorProto.FLOAT, [batch, len(CLASSES)])},
        metadata=metadata_text() if metadata == "" else metadata,
    )


def save_plugin_model(path: Path, *, metadata: str | None) -> Path:
    """One DCNv3Packed node."""
    attributes: dict[str, Any] = {
        **{f"{name}_{axis}": 3 if name == "kernel" else 1
           for name in ("kernel", "stride", "pad", "dilation") for axis in "hw"},
        "group": 1, "offset_scale": 1.0, "remove_center": 0, "softmax": 1, "plugin_version": "1",
    }  # fmt: skip
    node = helper.make_node(
        "DCNv3Packed", ["input", "points"], ["logits"], "block", domain="dcnv3", **attributes
    )
    return save_model(
        path,
        [node],
        {},
        inputs={
            "input": (TensorProto.FLOAT, [1, 5, 5, 16]),
            "points": (TensorProto.FLOAT, [1, 5, 5, 27]),
        },
        outputs={"logits": (TensorProto.FLOAT, [1, 5, 5, 16])},
        metadata=metadata,
    )
