"""Records of the original detectors: their models, built and filled here, and their inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import nn

import internimage.integrations.openmmlab.detection  # noqa: F401  (registers the models)
from internimage.integrations.openmmlab import convert_state_dict
from tests.detection.released_configs import to_current
from tests.released_records import Arrays, Weight, read_task_record, released_weights


def read_record(name: str) -> tuple[dict[str, Any], Arrays]:
    """Return a record's description and its arrays."""
    return read_task_record("detection", name)


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


def pair_detections(
    boxes: np.ndarray, labels: np.ndarray, found_boxes: np.ndarray, found_labels: np.ndarray
) -> list[tuple[int, int]]:
    """Return (recorded, found) indices of equal detections (x1, y1, x2, y2, score)."""
    pairs = []
    free = np.ones(len(found_boxes), dtype=bool)
    tolerance = np.array([0.02, 0.02, 0.02, 0.02, 1e-4])  # pixels, score
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        same = free & (found_labels == label) & (np.abs(found_boxes - box) <= tolerance).all(axis=1)
        if same.any():
            j = int(np.argmax(same))
            pairs.append((i, j))
            free[j] = False
    return pairs
