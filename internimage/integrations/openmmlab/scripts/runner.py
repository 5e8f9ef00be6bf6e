"""mmengine's Runner with data sets that name an image they cannot take, and take none in part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from internimage.integrations.openmmlab.data.image_files import check_image
from internimage.integrations.openmmlab.data.mask_file import read_mask
from internimage.integrations.openmmlab.scripts.data_checks import require_images
from internimage.integrations.openmmlab.scripts.model_building import naming_part
from internimage.integrations.openmmlab.scripts.ranks import replace_sync_batch_norm
from internimage.integrations.openmmlab.scripts.safe_loading import register_safe_loading

ABOUT_DATA = (ValueError, OSError, RuntimeError, ArithmeticError, AssertionError, cv2.error)
"""What transforms raise about an image: other errors are mistakes of a program."""

PATHS = ("img_path", "seg_map_path")
CAMERAS = "img_paths"
"""Of a frame of driving: the images of all cameras."""

JPEG = (".jpg", ".jpeg")
JPEG_END = b"\xff\xd9"


def prepare_process(config: Config) -> None:
    """Set up what a training and an evaluation share: safe loading, TF32, plain batch norms.

    Args:
        config: Gets plain batch norms where one process has nothing to synchronise.
    """
    register_safe_loading()
    # As the original's train.py, which its published scores come from; an evaluation measures
    # what the run itself would.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    if count := replace_sync_batch_norm(config):
        print_log(f"{count} SyncBN of the config are plain BN here", "current")


class NamingRunner(Runner):
    """Builds its loaders so that an error about an image names the image.

    A hook would come too late: a schedule by steps starts the workers of its loader when it is
    built. A setting that a part of the model cannot take is an error that names the part.
    """

    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        """Build the model, or return it as it is.

        Raises:
            ValueError: A part does not take its settings.
        """
        with naming_part():
            return super().build_model(model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict[str, Any],
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a loader; its data sets, those within wrappers as well, name their errors.

        Raises:
            ValueError: There are no images.
        """
        # Static as the one that it overrides, and so without super().
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        require_images(loader.dataset)
        for dataset in _leaves(loader.dataset):
            # Once: a loader that is built already comes here a second time.
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
        """Transform an image, or the images of a frame.

        Raises:
            ValueError: It is cut short, or a transform cannot take it and has not named it itself.
        """
        if CAMERAS in data:
            return self._transform_frame(data)
        paths = [str(data[name]) for name in PATHS if data.get(name)]
        if paths:
            _require_whole(paths[0])  # masks are no JPEGs: CheckSegMap refuses those
        try:
            return self.pipeline(data)
        except ABOUT_DATA as error:
            text = " ".join(str(error).split())
            if not paths or any(path in text for path in paths):
                raise  # it names the file itself
            is_mask = len(paths) > 1 and not _is_mask_whole(paths[1])
            raise ValueError(
                f"expected {'a mask' if is_mask else 'an image'} that the transforms can take, got "
                f"{paths[is_mask]}: {text}"
            ) from error

    def _transform_frame(self, data: dict[str, Any]) -> Any:
        for path in data[CAMERAS]:
            _require_whole(str(path))
        token = str(data.get("token"))
        try:
            return self.pipeline(data)
        except ABOUT_DATA as error:
            text = " ".join(str(error).split())
            if token in text or any(str(path) in text for path in data[CAMERAS]):
                raise
            raise ValueError(
                f"expected a frame that the transforms can take, got {token}: {text}"
            ) from error


def _require_whole(path: str) -> None:
    """Refuse a JPEG that ends early: OpenCV would fill the rest with grey and go on."""
    if not path.lower().endswith(JPEG) or not os.path.isfile(path):
        return
    # Two bytes of a file that is about to be read anyway: no decoding where all is well.
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(JPEG_END)))
        if file.read() == JPEG_END:
            return
    # Cameras write things of their own behind the end: the decoder knows.
    _, kind, example = check_image(Path(path), decode=True)
    if kind == "unreadable image":
        raise ValueError(f"expected a whole image, got {example}")


def _is_mask_whole(path: str) -> bool:
    try:
        read_mask(Path(path))
    except (OSError, ValueError):
        return False
    return True


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield a data set, or those within its wrappers."""
    if hasattr(dataset, "datasets"):
        for inner in dataset.datasets:
            yield from _leaves(inner)
    elif hasattr(dataset, "dataset"):
        yield from _leaves(dataset.dataset)
    else:
        yield dataset
