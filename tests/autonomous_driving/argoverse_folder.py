"""A small folder in the layout of Argoverse 2 with vectorised maps, its images noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internimage.integrations.openmmlab.driving.data.openlane_layout import CAMERAS

SIZE = (48, 64)  # height and width in pixels
NUM_FRAMES = 3
LINES: dict[str, list[Any]] = {
    "ped_crossing": [[[5, -3, 0], [8, -3, 0], [8, 3, 0], [5, 3, 0], [5, -3, 0]]],
    "divider": [[[-20, 1, 0.1], [0, 1.5, 0], [20, 1, 0.2]]],
    "boundary": [[[-30, 6, 0], [30, 6, 0]], [[-30, -6, 0], [10, -6, 0], [12, -15, 0]]],
}


def ego_to_camera(heading: float) -> np.ndarray:
    """Return the pose (4, 4) of a camera 1.5 m above the ground that looks along a heading."""
    forward = np.array([np.cos(heading), np.sin(heading), 0])
    left = np.array([-np.sin(heading), np.cos(heading), 0])
    pose = np.eye(4)
    pose[:3, :3] = [-left, [0, 0, -1], forward]
    pose[:3, 3] = pose[:3, :3] @ [0, 0, -1.5]
    return pose


def write_folder(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Write the images and ``train_annotations.json``, and return what is in it."""
    generator = np.random.default_rng(0)
    frames = []
    for index in range(NUM_FRAMES):
        sensor = {}
        for number, camera in enumerate(CAMERAS):
            path = Path("train") / camera / f"{index}.png"
            (root / path.parent).mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (*SIZE, 3), np.uint8)).save(root / path)
            sensor[camera] = {
                "image_path": str(path),
                "intrinsic": [[50.0, 0, SIZE[1] / 2], [0, 50.0, SIZE[0] / 2], [0, 0, 1]],
                "extrinsic": ego_to_camera(2 * np.pi * number / len(CAMERAS)).tolist(),
            }
        frames.append(
            {
                "timestamp": str(315970000000000000 + 500000000 * index),
                "pose": {
                    "ego2global_translation": [10.0 + index, 20.0, 0.0],
                    "ego2global_rotation": [1.0, 0.0, 0.0, 0.0],
                },
                "sensor": sensor,
                "annotation": json.loads(json.dumps(LINES)),
            }
        )
    content = {"segment": frames}
    (root / "train_annotations.json").write_text(json.dumps(content))
    return content
