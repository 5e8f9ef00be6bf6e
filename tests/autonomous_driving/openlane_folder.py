"""A folder of OpenLane-V2 with a few small frames, as the data set lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internimage.integrations.openmmlab.driving.data.openlane_layout import CAMERAS

FRONT_SIZE = (31, 41)
"""Width and height in pixels of the front image, which stands upright; the others lie."""

TIMES = ("315970000000000000", "315970000500000000")


def frame_json(split: str, segment: str, time: str) -> dict[str, Any]:
    """Return a frame with three lanes, two elements, and poses that are not trivial."""
    rng = np.random.default_rng(int(time) % 2**32)
    sensor = {}
    for number, camera in enumerate(CAMERAS):
        angle = 0.7 * number
        # Camera x right, y down, z ahead, in ego axes.
        ahead = np.array([np.cos(angle), np.sin(angle), 0])
        right = np.array([np.sin(angle), -np.cos(angle), 0])
        width, height = FRONT_SIZE if number == 0 else FRONT_SIZE[::-1]
        sensor[camera] = {
            "image_path": f"{split}/{segment}/image/{camera}/{time}.jpg",
            "extrinsic": {
                "rotation": np.stack([right, [0, 0, -1], ahead], 1).tolist(),
                "translation": [1.5, 0.1 * number, 1.4],
            },
            "intrinsic": {
                "K": [[30.0, 0, width / 2], [0, 30.0, height / 2], [0, 0, 1]],
                "distortion": [0, 0, 0],
            },
        }
    along = np.linspace(0, 1, 201)[:, None]
    lanes = [start + along * step for start, step in rng.normal(0, 10, (3, 2, 3))]
    return {
        "version": "OpenLane-V2_v1.0",
        "segment_id": segment,
        "meta_data": {"source": "Argoverse 2", "source_id": "none"},
        "timestamp": int(time),
        "sensor": sensor,
        "pose": {"rotation": np.eye(3).tolist(), "translation": [1000.0, -2000.0, 3.0]},
        "annotation": {
            "lane_centerline": [
                {"id": 10 + i, "points": line.tolist()} for i, line in enumerate(lanes)
            ],
            "traffic_element": [
                {"id": 20, "category": 1, "attribute": 1, "points": [[3.0, 4.0], [9.0, 16.0]]},
                {"id": 21, "category": 2, "attribute": 4, "points": [[18.0, 5.0], [27.0, 11.0]]},
            ],
            "topology_lclc": [[0, 1, 0], [0, 0, 1], [0, 0, 0]],
            "topology_lcte": [[1, 0], [0, 0], [0, 1]],
        },
    }


def write_openlane_folder(root: Path, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Write two frames of a segment for each split, with one colour an image, and the list."""
    listed: dict[str, dict[str, list[str]]] = {}
    for number, split in enumerate(splits):
        segment = f"{number:05}"
        listed[split] = {segment: [f"{time}.json" for time in TIMES]}
        for time in TIMES:
            frame = frame_json(split, segment, time)
            if split == "test":
                del frame["annotation"]
            path = root / split / segment / "info" / f"{time}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(frame))
            for index, camera in enumerate(CAMERAS):
                image = root / frame["sensor"][camera]["image_path"]
                image.parent.mkdir(parents=True, exist_ok=True)
                size = FRONT_SIZE if index == 0 else FRONT_SIZE[::-1]
                Image.new("RGB", size, (30 * index, 100, 50)).save(image)
    (root / "data_dict_subset_A.json").write_text(json.dumps(listed))
    return root
