"""What test.py draws of a detector's predictions with ``--show-dir``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.engine.hooks import DetVisualizationHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from internimage.integrations.openmmlab.scripts.output_folders import OutputFolders


@HOOKS.register_module()
class BoxPicturesHook(DetVisualizationHook):
    """mmdet's ``DetVisualizationHook``, whose pictures keep the sub-folders of the images.

    Args:
        image_dirs: The folders of images of the data sets.
        **fields: Those of mmdet's; ``test_out_dir`` is a whole path.
    """

    test_out_dir: str | None

    def __init__(self, *, image_dirs: Sequence[str] = (), **fields: Any) -> None:
        super().__init__(**fields)
        self._folders = OutputFolders(image_dirs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw a batch."""
        whole = self.test_out_dir
        for sample in outputs:
            if whole is not None:
                self.test_out_dir = str(Path(whole) / self._folders.folder_of(sample.img_path))
            super().after_test_iter(runner, batch_idx, data_batch, [sample])
        self.test_out_dir = whole
