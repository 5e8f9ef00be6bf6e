"""Metadata of exported files as tests need them."""

from __future__ import annotations

import json
from typing import Any

from internimage.runtime import Metadata, parse_metadata

RESIZE = {
    "mode": "keep_ratio",
    "scale": [64, 32],
    "filter": "cv2_bilinear",
    "pad_divisor": None,
    "pad_to": None,
    "pad_value": 0,
}


def metadata_text(**changes: Any) -> str:
    """Return the JSON text of a segmentor's metadata with some fields changed."""
    fields: dict[str, Any] = {
        "format": 1,
        "task": "segmentation",
        "model": "upernet",
        "version": "0.1.0",
        "precision": "fp32",
        "operator": "grid_sample",
        "input_size": [None, None],
        "batch": 1,
        "classes": ["ant", "bee", "cat"],
        "palette": [[250, 0, 0], [0, 250, 0], [0, 0, 250]],
        "mean": [120.0, 110.0, 100.0],
        "std": [60.0, 50.0, 40.0],
        "resize": RESIZE,
        "window": None,
        "score_threshold": None,
        "mask_threshold": 0.5,
    }
    return json.dumps(fields | changes)


def make_metadata(*, resize: dict[str, Any] | None = None, **changes: Any) -> Metadata:
    """Return metadata of a segmentor with some fields changed, of ``resize`` the given ones."""
    text = metadata_text(resize=RESIZE | (resize or {}), **changes)
    return parse_metadata(text, origin="test.onnx")
