"""The order of frames at test time: whole scenes, each on one process, frame after frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class SceneSampler(Sampler):
    """Gives every process whole scenes, their frames in order, so that history is never cut.

    No frame occurs twice, and the processes may differ in their number of frames: metrics gather
    by token (``SceneMetric``), not by place.

    Args:
        dataset: a ``DrivingDataset``, or a wrapper that has its ``get_data_info``.
        seed: what mmengine hands to every sampler; the order is always the same.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        rank, world_size = get_dist_info()
        scenes: dict[str, list[int]] = {}
        for index in range(len(dataset)):
            scenes.setdefault(dataset.get_data_info(index)["scene"], []).append(index)
        # The longest scenes first, each to whom has the least: loads end up nearly even. Nothing is
        # drawn: every process comes to the same shares without a word to the others.
        loads: list[list[int]] = [[] for _ in range(world_size)]
        for scene in sorted(scenes, key=lambda name: -len(scenes[name])):
            min(loads, key=len).extend(scenes[scene])
        self.indices = loads[rank] if world_size > 1 else list(range(len(dataset)))

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is the same in every epoch. mmengine calls it."""
