"""What test.py keeps of a segmentor's predictions: pictures with ``--show-dir``, ``--out``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS
from mmengine.runner import Runner
from mmseg.evaluation import CityscapesMetric, IoUMetric

from internimage.files import write_atomically
from internimage.integrations.openmmlab.data.mask_file import IGNORED, NUM_LABELS
from internimage.integrations.openmmlab.scripts.output_folders import OutputFolders
from internimage.integrations.openmmlab.segmentation.palettes import (
    as_colours,
    lay_colours,
    random_palette,
)


@HOOKS.register_module()
class OverlayHook(Hook):
    """Writes each image with the colours of its classes laid over it.

    mmseg's own hook names the pictures after their place in the run, puts the masks beside, and
    writes into a folder of logs.

    Args:
        out_dir: Gets ``NAME.png`` for each image, in the sub-folders of the images.
        opacity: Of the colours, 0-1.
        image_dirs: The folders of images of the data sets.
    """

    def __init__(self, out_dir: str, opacity: float, image_dirs: Sequence[str] = ()) -> None:
        self.out_dir = Path(out_dir)
        self.opacity = opacity
        self._folders = OutputFolders(image_dirs, suffix=".png")

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Write the pictures of a batch."""
        dataset = runner.test_dataloader.dataset
        known = dataset.metainfo.get("palette") or []
        for sample in outputs or ():
            image = mmcv.imread(sample.img_path)
            labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
            # Released heads have outputs that are no class of the data set.
            more = random_palette(max(len(known), int(labels.max()) + 1))[len(known) :]
            palette = as_colours([*known, *more])
            picture = lay_colours(image, labels, palette, opacity=self.opacity)
            folder = self.out_dir / self._folders.folder_of(sample.img_path)
            _write(folder / f"{Path(sample.img_path).stem}.png", picture)


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # In memory: cv2.imwrite tells of a full disk by a return value at best.
    content = cv2.imencode(".png", picture)[1].tobytes()
    write_atomically(path, lambda file: file.write_bytes(content))


@METRICS.register_module()
class DumpLabelMaps(DumpResults):
    """Keeps the label map of each image: mmengine's own keeps the scores of all classes as well.

    The file is a pickled list of dicts of ``img_path`` and ``labels``, an array (H, W) of uint8, or
    uint16 where the data set has more than 256 classes.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Take over the predictions of a batch."""
        # int64, as the model has them, would be eight times the file.
        kind = np.uint8 if len(self.dataset_meta["classes"]) <= NUM_LABELS else np.uint16
        for sample in data_samples:
            labels = sample["pred_sem_seg"]["data"].squeeze(0).cpu().numpy()  # (H, W)
            self.results.append({"img_path": sample["img_path"], "labels": labels.astype(kind)})


class FilesOfClasses(BaseMetric):
    """Lets a metric of mmseg write files of classes alone, in the sub-folders of the images.

    Args:
        image_dirs: The folders of images of the data sets.
        **fields: Those of mmseg's metric.
    """

    output_dir: str | None

    def __init__(self, *, image_dirs: Sequence[str] = (), **fields: Any) -> None:
        super().__init__(**fields)
        self._folders = OutputFolders(image_dirs, suffix=".png")

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Take over the predictions of a batch."""
        whole = self.output_dir
        try:
            for sample in with_classes_alone(data_samples, self.dataset_meta["classes"]):
                if whole is not None:
                    folder = Path(whole, self._folders.folder_of(sample["img_path"]))
                    folder.mkdir(parents=True, exist_ok=True)
                    self.output_dir = str(folder)
                super().process(data_batch, [sample])
        finally:
            self.output_dir = whole


@METRICS.register_module()
class IoUMetricOfClasses(FilesOfClasses, IoUMetric):
    """mmseg's ``IoUMetric``, whose files have no other labels than classes and 255.

    Where the data set lowers labels by one, they are raised again, and what is no class is 0.
    """


@METRICS.register_module()
class CityscapesMetricOfClasses(FilesOfClasses, CityscapesMetric):
    """mmseg's ``CityscapesMetric``, whose files have the ids of Cityscapes' classes, or 0."""


def with_classes_alone(
    samples: Sequence[dict[str, Any]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return predictions with 255 for labels that are none.

    Released heads have 150 outputs for Cityscapes' 19 classes. The others were never trained, but
    nothing rules them out, and in a file for a server such a label would be that of another class.

    Args:
        samples: with ``pred_sem_seg``; they stay as they are.
        classes: of the data set.
    """
    changed = []
    for sample in samples:
        labels = sample["pred_sem_seg"]["data"]
        # A new tensor: other metrics get the same samples. Where labels are raised by one, mmseg's
        # 8 bits turn 255 into 0.
        labels = labels.masked_fill(labels >= len(classes), IGNORED)
        changed.append({**sample, "pred_sem_seg": {**sample["pred_sem_seg"], "data": labels}})
    return changed
