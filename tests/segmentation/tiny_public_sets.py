"""Two images a part, in the folders and by the names that a config's data sets expect."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.registry import DATASETS
from PIL import Image

HEIGHT, WIDTH = 48, 64
NUM_IMAGES = 2
STEMS = {"CityscapesDataset": "aachen/aachen_00000{}_000019"}
"""Names of images below the folder, where they are not numbers."""


def parts_of(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the data sets that one is made of."""
    return list(dataset.get("datasets", [dataset]))


def suffix_of(data: dict[str, Any], key: str) -> str:
    """Return a suffix of a data set's files, that of its class if the config has none."""
    signature = inspect.signature(DATASETS.get(data["type"]).__init__)
    return data.get(key) or signature.parameters[key].default


def stripes(values: Sequence[int]) -> np.ndarray:
    """Return a mask (H, W) with a stripe of each value, as wide as the others."""
    columns = np.arange(WIDTH) * len(values) // WIDTH
    return np.broadcast_to(np.array(values, np.uint8)[columns], (HEIGHT, WIDTH))


def make(root: Path, dataset: dict[str, Any], values: Sequence[int]) -> None:
    """Write the images and masks of a data set, and its lists.

    Args:
        root: takes the place of the config's ``data_root``.
        dataset: of one of a config's loaders.
        values: what stands in the files of the masks.
    """
    for data in parts_of(dataset):
        prefix = data["data_prefix"]
        stem = STEMS.get(data["type"], "{}")
        names = [stem.format(i) for i in range(NUM_IMAGES)]
        for i, name in enumerate(names):
            random = np.random.default_rng(i)
            pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            for folder, key, content in (
                (prefix["img_path"], "img_suffix", pixels),
                (prefix["seg_map_path"], "seg_map_suffix", stripes(values)),
            ):
                path = root / folder / f"{name}{suffix_of(data, key)}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
        if "ann_file" in data:
            path = root / data["ann_file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(names) + "\n")
