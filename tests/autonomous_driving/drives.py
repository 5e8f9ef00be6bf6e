"""The drives of ``tools/make_driving_scenes.py``, read as a training reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from internimage.integrations.openmmlab.driving import (
    ArgoverseMapDataset,
    DrivingDataset,
    Occ3DDataset,
    OpenLaneDataset,
)
from tools.driving_scenes.nuscenes import TRAIN
from tools.driving_scenes.world import Scene, city_scene

GRID_SHAPE = (20, 20, 4)
CITY_FRAMES = 6
RING_SIZE = (100, 132)

IMAGES = [{"type": "LoadDrivingImages"}]
RESIZED = [*IMAGES, {"type": "ResizeDrivingImages", "size": RING_SIZE}]
PARTS: dict[str, tuple[type[DrivingDataset], str, list[dict[str, Any]]]] = {
    "nuscenes": (
        Occ3DDataset,
        "occ_infos_temporal_{}.pkl",
        [*IMAGES, {"type": "LoadOccupancy", "shape": GRID_SHAPE}, {"type": "PackDrivingInputs"}],
    ),
    "openlane": (
        OpenLaneDataset,
        "data_dict_subset_A_{}.pkl",
        [
            *RESIZED,
            {"type": "LoadOpenLane", "for_scoring": True},
            {"type": "PackDrivingInputs", "meta_keys": ("identifier",)},
        ],
    ),
    "argoverse2": (
        ArgoverseMapDataset,
        "{}_annotations.json",
        [*RESIZED, {"type": "LoadVectorMap"}, {"type": "PackDrivingInputs"}],
    ),
}


def read(scenes: Path, part: str, **kwargs: Any) -> DrivingDataset:
    """Returns a part of the drives, of training unless ``ann_file`` says otherwise."""
    dataset, ann_file, pipeline = PARTS[part]
    settings = {
        "data_root": str(scenes / part),
        "ann_file": ann_file.format("train"),
        "pipeline": pipeline,
        "test_mode": True,
        "serialize_data": False,  # mmengine collects garbage for it, half a second
    }
    return dataset(**(settings | kwargs))


def annotations(scenes: Path, part: str) -> Path:
    """Returns the file that the frames of training are read from."""
    return scenes / part / PARTS[part][1].format("train")


def city(index: int) -> Scene:
    """Returns the world of a drive of training, as the tool builds it when not told otherwise."""
    return city_scene(TRAIN[index], index=index, num_frames=CITY_FRAMES, seed=0)
