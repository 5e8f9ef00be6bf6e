"""mmengine's Runner with data sets that name the file where an image or a mask cannot be taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
from mmengine.runner import Runner
from torch.utils.data import DataLoader

ABOUT_DATA = (ValueError, OSError, RuntimeError, ArithmeticError, AssertionError, cv2.error)
"""What transforms raise about an image: other errors are mistakes of a program."""

PATHS = ("img_path", "seg_map_path")


class NamingRunner(Runner):
    """Builds its loaders so that an error about an image names the image.

    A hook would come too late: a schedule by steps starts the workers of its loader when it is
    built.
    """

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict[str, Any],
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a loader; its data sets, those within wrappers as well, name their errors."""
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        for dataset in _leaves(loader.dataset):
            if not isinstance(getattr(dataset, "pipeline", None), (NamingPipeline, type(None))):
                dataset.pipeline = NamingPipeline(dataset.pipeline)
        return loader


class NamingPipeline:
    """The transforms of a data set.

    Args:
        pipeline: What is called for an image.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    @property
    def transforms(self) -> Any:
        """The transforms one by one."""
        return self.pipeline.transforms

    def __call__(self, data: dict[str, Any]) -> Any:
        """Transform an image.

        Raises:
            ValueError: A transform cannot take it, and has not named it itself.
        """
        paths = [str(data[name]) for name in PATHS if data.get(name)]
        try:
            return self.pipeline(data)
        except ABOUT_DATA as error:
            text = " ".join(str(error).split())
            if not paths or any(path in text for path in paths):
                raise
            raise ValueError(
                f"expected an image that the transforms can take, got {paths[0]}: {text}"
            ) from error


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield a data set, or those within its wrappers."""
    if hasattr(dataset, "datasets"):
        for inner in dataset.datasets:
            yield from _leaves(inner)
    elif hasattr(dataset, "dataset"):
        yield from _leaves(dataset.dataset)
    else:
        yield dataset
