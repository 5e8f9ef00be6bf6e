"""ONNX models of one node of the operator, and sessions that run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from dcnv3_cases import Case
from onnx import TensorProto, helper

TYPES = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}
SEPARATE, PACKED = ("input", "offset", "mask"), ("input", "offset_mask")


def attributes(case: Case) -> dict[str, Any]:
    """A node's attributes, of the names and kinds that its schema gives them."""
    geometry = case.static_arguments._asdict()
    names = {"padding_h": "pad_h", "padding_w": "pad_w", "groups": "group"}
    named = {names.get(name, name): value for name, value in geometry.items()}
    named["remove_center"] = int(case.remove_center)
    return named | {"softmax": int(case.softmax), "plugin_version": "1"}


def model(inputs: tuple[str, ...], dtype: int, given: dict[str, Any]) -> bytes:
    """The bytes of a file with one node; shapes are left open."""
    name = "DCNv3" if inputs == SEPARATE else "DCNv3Packed"
    node = helper.make_node(name, inputs, ["output"], name="node", domain="dcnv3", **given)
    values = [helper.make_tensor_value_info(title, dtype, None) for title in (*inputs, "output")]
    graph = helper.make_graph([node], "graph", values[:-1], values[-1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("dcnv3", 1)]
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return made.SerializeToString()


def session(
    options: onnxruntime.SessionOptions, inputs: tuple[str, ...], dtype: int, given: dict[str, Any]
) -> onnxruntime.InferenceSession:
    """A session that keeps its errors to itself: they are raised as well."""
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model(inputs, dtype, given), options, providers=["CPUExecutionProvider"]
    )


def feed(tensors: tuple[torch.Tensor, ...], inputs: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The tensors input, offset and mask as a node of either kind takes them."""
    image, offset, mask = tensors
    if inputs == SEPARATE:
        return dict(zip(inputs, (t.numpy() for t in tensors), strict=True))
    # what lies behind the weights is padding, which must not be read
    padding = torch.full((*mask.shape[:3], 3), float("nan"), dtype=mask.dtype)
    return {
        "input": image.numpy(),
        "offset_mask": torch.cat([offset, mask, padding], -1).numpy(),
    }
