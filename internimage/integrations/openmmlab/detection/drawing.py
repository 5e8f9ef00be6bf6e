"""Detections drawn on their picture, by mmdet's visualizer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

PaletteName = Literal["coco", "voc", "citys", "random"]
"""Sets of colours that mmdet knows by name, one colour a class."""

Palette = PaletteName | list[tuple[int, int, int]]


class Painter:
    """Draws boxes, masks, names and scores.

    Args:
        class_names: one a class, or none at all.
        palette: a name, or one colour (red, green, blue; 0-255) a class.
    """

    def __init__(self, class_names: Sequence[str], palette: Palette) -> None:
        self._visualizer = DetLocalVisualizer()
        # A pair of dollars would be set as mathematics.
        names = [name.replace("$", r"\$") for name in class_names]
        meta: dict[str, Any] = {"classes": names or None, "palette": palette}
        self._visualizer.dataset_meta = meta

    def draw(self, image: np.ndarray, instances: InstanceData) -> np.ndarray:
        """Return the picture with all the instances on it.

        Args:
            image: (H, W, 3), uint8, blue-green-red.
            instances: ``bboxes``, ``labels``, ``scores`` and perhaps ``masks`` of this image.

        Returns:
            (H, W, 3), uint8, blue-green-red.
        """
        rgb = np.ascontiguousarray(image[..., ::-1])
        if len(instances) == 0:
            return image.copy()
        sample = DetDataSample(pred_instances=instances)
        state = np.random.get_state()
        np.random.seed(0)  # masks of one class differ by a jitter, the same in every run
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a box at the border; a missing glyph
                self._visualizer.add_datasample("", rgb, sample, draw_gt=False, pred_score_thr=-1.0)
        finally:
            np.random.set_state(state)
        return np.ascontiguousarray(self._visualizer.get_image()[..., ::-1])
