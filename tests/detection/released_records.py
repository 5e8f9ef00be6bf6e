"""Records of the original detectors: their models, built and filled here, and their inputs."""

from __future__ import annotations

import functools
import json
import lzma
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import Tensor, nn

import internimage.integrations.openmmlab.detection  # noqa: F401  (registers the models)
from internimage.integrations.openmmlab import convert_state_dict
from tests.detection.released_configs import to_current

FOLDER = Path(__file__).parent.parent / "fixtures" / "parity" / "detection"
TOLERANCE = 1e-4
"""Of a difference in float32, in standard deviations of the recorded tensor."""

Weight = Callable[[str, tuple[int, ...]], Tensor]


@functools.cache
def read_json(name: str) -> dict[str, Any]:
    """Return one of the compressed JSON files."""
    return json.loads(lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()))


def read_record(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a record's description and its arrays."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return read_json("records")[name], dict(arrays)


def released_weights(record: dict[str, Any], weight: Weight) -> dict[str, Tensor]:
    """Return the record's weights, float32, under their original names."""
    weights = {
        key: weight(key, tuple(shape)).to(
            torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        )
        for key, shape in record["state_dict"].items()
    }
    if overrides := record.get("weight_overrides"):
        for key in weights:
            if re.search(overrides["regex"], key):
                weights[key] = weights[key] * overrides["multiply_by"]
    return weights


def build_filled(record: dict[str, Any], weight: Weight) -> nn.Module:
    """Build a record's model; every weight comes from its original name, and all must fit."""
    model = MODELS.build(ConfigDict(to_current(record["model"])))
    # strictly, although DINO would convert by itself
    model.load_state_dict(convert_state_dict(released_weights(record, weight)), strict=True)
    return model


def data_samples(record: dict[str, Any]) -> list[DetDataSample]:
    """Return mmdet's data samples of a record's images, without targets."""
    height, width = record["input"]["shape"][2:]
    return [
        DetDataSample(
            metainfo=dict(
                img_shape=tuple(shape[:2]),
                ori_shape=tuple(shape[:2]),
                pad_shape=(height, width),
                batch_input_shape=(height, width),
                scale_factor=(1.0, 1.0),
            )
        )
        for shape in record["input"]["img_shapes"]
    ]


@contextmanager
def captured(**modules: nn.Module) -> Iterator[dict[str, list[Any]]]:
    """Collect what modules return, each time they are called, by the name given here."""
    found: dict[str, list[Any]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _, __, result, name=name: found[name].append(result))
        for name, module in modules.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def assert_equals_record(
    name: str, value: Tensor, record: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Compare a tensor with a recorded one of the same name, in units of that one's spread."""
    entry = record["arrays"][name]
    assert list(value.shape) == entry["shape"], name
    values = value.detach().double().numpy()
    if entry["stored"] == "sample":
        values = values.reshape(-1)[arrays[f"{name}__idx"]]
    expected = arrays[name].astype(np.float64)
    spread = entry["stats"]["std"] or 1.0
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=TOLERANCE * spread, err_msg=name, strict=False
    )


def missed_detections(
    boxes: np.ndarray, labels: np.ndarray, found_boxes: np.ndarray, found_labels: np.ndarray
) -> int:
    """Count recorded detections (x1, y1, x2, y2, score) that have no equal among those found."""
    missed = 0
    free = np.ones(len(found_boxes), dtype=bool)
    tolerance = np.array([0.02, 0.02, 0.02, 0.02, 1e-4])  # pixels, score
    for box, label in zip(boxes, labels, strict=True):
        same = free & (found_labels == label) & (np.abs(found_boxes - box) <= tolerance).all(axis=1)
        if same.any():
            free[np.argmax(same)] = False
        else:
            missed += 1
    return missed
