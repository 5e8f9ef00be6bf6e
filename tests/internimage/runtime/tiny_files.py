"""Exported files of every task with a graph of a few nodes, as the runner takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.internimage.runtime.runner_metadata import metadata_text

NAMES = ["ant", "bee", "cat"]

IMAGE = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h", "w"])


def save_file(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray] | None = None,
    *,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    **metadata: Any,
) -> Path:
    """Write a graph from ``input`` to ``outputs`` with its metadata; return its path."""
    kinds = {"labels": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [IMAGE, *inputs],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("dcnv3", 1)],
        ir_version=9,
    )
    if metadata:
        helper.set_model_props(model, {"internimage": metadata_text(**metadata)})
    onnx.save(model, path)
    return path


def save_segmentor(path: Path, **metadata: Any) -> Path:
    """Write a segmentor whose classes are red, green and blue."""
    resize = dict(mode="keep_ratio", scale=None, filter="cv2_bilinear", pad_divisor=None)
    resize |= dict(pad_to=None, pad_value=0)
    metadata = dict(task="segmentation", classes=NAMES, resize=resize) | metadata
    node = helper.make_node("Identity", ["input"], ["scores"])
    return save_file(path, [node], ["scores"], mean=[0.0] * 3, std=[1.0] * 3, **metadata)


def save_classifier(path: Path, **metadata: Any) -> Path:
    """Write a classifier whose logits are the means of red, green and blue, 0-1."""
    resize = dict(mode="crop", shorter_side=8, size=[8, 8], filter="bicubic")
    metadata = dict(task="classification", classes=NAMES, resize=resize) | metadata
    node = helper.make_node("ReduceMean", ["input", "sides"], ["logits"], keepdims=0)
    constants = {"sides": np.array([2, 3])}
    mean, std = [0.0] * 3, [255.0] * 3
    return save_file(path, [node], ["logits"], constants, mean=mean, std=std, **metadata)


def save_detector(path: Path, dets: np.ndarray, labels: np.ndarray, **metadata: Any) -> Path:
    """Write a detector with masks that finds the same in every image of 32 x 64 pixels.

    Args:
        path: the file.
        dets: (K, 5).
        labels: (K,).
        **metadata: fields to change.
    """
    constants = {
        "some": dets[None].astype(np.float32),
        "classes": labels[None].astype(np.int64),
        "inside": np.full((1, len(dets), 28, 28), 0.9, np.float32),
    }
    size = helper.make_tensor_value_info("image_size", TensorProto.INT64, ["n", 2])
    pairs = [("some", "dets"), ("classes", "labels"), ("inside", "masks")]
    nodes = [helper.make_node("Identity", [source], [target]) for source, target in pairs]
    resize = dict(mode="keep_ratio", scale=[64, 32], filter="cv2_bilinear", pad_divisor=32)
    resize |= dict(pad_to=None, pad_value=0)
    metadata = dict(task="detection", classes=NAMES, resize=resize) | metadata
    return save_file(
        path, nodes, [target for _, target in pairs], constants, inputs=[size], **metadata
    )
