"""The check of a mask as it is loaded: what is wrong with it is said before a loss is.

mmseg takes a mask as it comes: a colour image, labels that the model has no output for, labels of
16 bits cut to 8. What follows is an error of an index deep inside of the loss, on a GPU one that
names no file, or a model that learns something else.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image

from internimage.integrations.openmmlab.data.mask_file import (
    IGNORED,
    LABELS,
    NUM_LABELS,
    read_mask,
)


@TRANSFORMS.register_module()
class CheckSegMap(BaseTransform):
    """Raises an error for a mask that is not one label a pixel of its image.

    It stands right behind ``LoadAnnotations``, where the mask is as large as the image's file, and
    labels are what the model is to learn: lowered by one, or mapped, if the data set says so.

    Args:
        num_classes: classes of the data set; the labels are 0 to ``num_classes - 1``.
        ignore_index: a label that is none, allowed beside them.

    Raises:
        ValueError: ``num_classes`` is not 1 to 255, which is what a mask of 8 bits holds beside the
            label to ignore. When called: the mask is a colour image, has not the size of its image,
            or has other labels.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORED) -> None:
        if not 0 < num_classes < NUM_LABELS:
            raise ValueError(
                "CheckSegMap: expected num_classes = 1 to 255, the labels of 8 bits but for one to "
                f"ignore, got {num_classes}"
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Check ``gt_seg_map``, (H, W) uint8, which keeps its values.

        An image without one, as mmseg's own inference has them, passes.

        Raises:
            ValueError: see the class.
        """
        if "gt_seg_map" not in results:
            return results
        path = results.get("seg_map_path") or "the mask"
        _check_file(path)
        labels = results["gt_seg_map"]
        height, width = results["ori_shape"][:2]
        if labels.ndim < 2 and labels.size == height * width and 1 in (height, width):
            # mmseg's loader (1.4) drops sides of one pixel, by squeeze().
            labels = results["gt_seg_map"] = labels.reshape(height, width)
        if labels.ndim != 2:
            shape = " x ".join(map(str, labels.shape))
            raise ValueError(
                f"CheckSegMap: expected {path} = one label a pixel, not a colour image, got an "
                f"array of {shape}"
            )
        if labels.shape != (height, width):
            raise ValueError(
                f"CheckSegMap: expected {path} = {width} x {height} pixels, the size of its image "
                f"{results.get('img_path', '')}, got {labels.shape[1]} x {labels.shape[0]}"
            )
        # The maximum alone is five times as fast as a mask of what is wrong.
        if labels.size and labels.max() >= self.num_classes:
            self._check_labels(labels, results, path)
        return results

    def _check_labels(self, labels: np.ndarray, results: dict[str, Any], path: str) -> None:
        wrong = labels[(labels >= self.num_classes) & (labels != self.ignore_index)]
        if not wrong.size:
            return
        # As they stand in the file, where the loader has lowered them.
        lowered = bool(results.get("reduce_zero_label"))
        found = np.unique(wrong).astype(np.int64) + lowered
        if lowered and found[-1] > IGNORED:
            raise ValueError(
                f"CheckSegMap: expected ignore_index = {IGNORED} with reduce_zero_label, for "
                f"LoadAnnotations makes {IGNORED} of a mask's 0, got {self.ignore_index} and {path}"
            )
        named = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        # With a map the labels of a file are its keys, not the classes.
        mapped = results.get("label_map")
        last = max(mapped) if mapped else self.num_classes - 1
        also = self.ignore_index + (lowered and self.ignore_index != IGNORED)
        ignored = f"0 and {also}" if lowered else str(also)
        raise ValueError(
            f"CheckSegMap: expected {path} = labels {int(lowered)} to {last + lowered}, and "
            f"{ignored} for what is ignored, got {named} in {wrong.size} of {labels.size} pixels"
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_classes={self.num_classes}, "
            f"ignore_index={self.ignore_index})"
        )


def _check_file(path: str) -> None:
    """Look at what the loader has lost: labels above 255 are cut to 8 bits, fractions to integers.

    Reads the header of the file, and the file where its kind could hold such labels. One that does
    not lie on this machine is left to the checks of what was loaded.
    """
    if not os.path.isfile(path):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            mode, is_lossy = file.mode, file.format in ("JPEG", "MPO")
    if mode in LABELS and not is_lossy:
        return
    # Masks of 16 or 32 bits and of colours are decoded a second time: they are rare. The first
    # fault is enough.
    for kind, rest in read_mask(Path(path)).faults:
        raise ValueError(
            f"CheckSegMap: expected one label of 8 bits a pixel, got a {kind}: {path}{rest}"
        )
