"""The metric of a run: occupancy scored frame by frame, or written for the benchmark's server."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.registry import METRICS
from numpy.typing import NDArray

from internimage.files import write_atomically
from internimage.integrations.openmmlab.driving.data.occ3d import FREE, OCCUPANCY_CLASSES
from internimage.integrations.openmmlab.driving.metrics.occupancy import (
    confusion_matrix,
    f_score,
    iou_per_class,
    mean_iou,
)
from internimage.integrations.openmmlab.driving.metrics.scene_metric import SceneMetric


@METRICS.register_module()
class OccupancyMetric(SceneMetric):
    """mIoU and, if asked for, the F-score of occupancy.

    ``mIoU`` and ``IoU_<class>`` are percent, as published; a class that is in no truth and in no
    prediction has no IoU. ``precision``, ``recall`` and ``F`` are 0-1, means over frames. A frame
    of which no voxel counts is left out of them, and such frames are counted in a warning.

    A submission is ``<token>.npz`` for each frame with its grid (X, Y, Z) uint8, and
    ``submission.json``, which lists them.

    Args:
        mask: the voxels that count: those a camera sees, as the benchmark does, or the LiDAR, or
            all.
        with_f_score: whether to compute the F-score, about a second a frame of the full grid.
        threshold: of the F-score, metres; None is the benchmark's, as for the two others.
        voxel_size: of the F-score, metres.
        origin: corner of the F-score's grid, metres.
        **kwargs: those of :class:`SceneMetric`.

    Raises:
        ValueError: ``mask`` is another word, or settings of the F-score are given without it.
    """

    default_prefix = "occ3d"

    def __init__(
        self,
        *,
        mask: Literal["camera", "lidar", "none"] = "camera",
        with_f_score: bool = False,
        threshold: float | None = None,
        voxel_size: float | None = None,
        origin: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        if mask not in ("camera", "lidar", "none"):
            raise ValueError(f"OccupancyMetric: expected mask camera, lidar or none, got {mask}")
        super().__init__(**kwargs)
        self.mask = mask
        # None, not the values themselves: whoever sets one without the F-score is told so below.
        settings = {"threshold": threshold, "voxel_size": voxel_size, "origin": origin}
        self.settings: dict[str, Any] = {
            name: value for name, value in settings.items() if value is not None
        }
        if self.settings and not with_f_score:
            raise ValueError(
                f"OccupancyMetric: expected with_f_score=True with {', '.join(self.settings)}, got "
                "False"
            )
        self.with_f_score = with_f_score

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count the voxels of each frame, and write its grid where that is asked for.

        Args:
            data_batch: not used.
            data_samples: with ``token`` and ``pred_semantics``, and the truth unless
                ``format_only``.

        Raises:
            ValueError: A sample lacks its prediction, its truth or its mask, their shapes differ,
                the prediction is no grid of classes, or the token cannot be the name of a file.
        """
        for sample in data_samples:
            grid = np.asarray(self.require(sample, "pred_semantics"))
            prediction = _checked(grid, sample["token"])
            if self.output_dir is not None:
                _check_file_name(sample["token"])
            result: dict[str, Any] = {"token": sample["token"]}
            if self.output_dir is not None:
                # At once: the grids of 6,019 frames are 4 GB.
                _write_grid(self.output_dir / f"{sample['token']}.npz", prediction)
            if not self.format_only:
                truth = np.asarray(self.require(sample, "gt_semantics"))
                mask = None
                if self.mask != "none":
                    mask = np.asarray(self.require(sample, f"mask_{self.mask}"))
                result["confusion"] = confusion_matrix(prediction, truth, mask)
                if self.with_f_score:
                    result["f_score"] = f_score(prediction, truth, mask, **self.settings)
            self.results.append(result)

    def write_submission(self, results: list[dict[str, Any]], folder: Path) -> None:
        """Write the list of grids; they themselves are written as they come."""
        names = {result["token"]: f"{result['token']}.npz" for result in results}
        content = json.dumps({"meta": self.submission, "results": names}, indent=1)
        write_atomically(folder / "submission.json", lambda path: path.write_text(content))

    def score(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Return the scores over all frames.

        Raises:
            ValueError: No voxel of any frame counts.
        """
        # A frame without labelled voxels in the mask: a precision of 0 would say that it was wrong.
        scored = [result for result in results if result["confusion"].any()]
        if not scored:
            raise ValueError(
                f"OccupancyMetric: expected voxels that count (mask {self.mask}), got none in all "
                f"{len(results):,} frames"
            )
        if len(scored) < len(results):
            bare = next(result for result in results if not result["confusion"].any())
            warnings.warn(
                f"OccupancyMetric: {len(results) - len(scored):,} of {len(results):,} frames have "
                f"no voxel that counts (mask {self.mask}) and are left out, the first "
                f"{bare['token']}",
                stacklevel=2,
            )
        results = scored
        # Of all frames together, as the benchmark has it: no mean of the frames' own IoU.
        confusion = sum(result["confusion"] for result in results)
        # Percent, as published; `to_scores` makes 0-1 of these names in metrics.json.
        scores = {"mIoU": 100 * mean_iou(confusion)}
        for name, iou in zip(OCCUPANCY_CLASSES, iou_per_class(confusion), strict=True):
            if not np.isnan(iou):  # JSON has no nan
                scores[f"IoU_{name}"] = 100 * float(iou)
        if self.with_f_score:
            # Of the frames, unlike the IoU.
            means = np.mean([result["f_score"] for result in results], 0)
            scores.update(zip(("precision", "recall", "F"), means.tolist(), strict=True))
        return scores


def _checked(grid: NDArray[Any], token: str) -> NDArray[np.uint8]:
    """Return a prediction as classes.

    Raises:
        ValueError: It holds other numbers, or is no grid.
    """
    if grid.ndim != 3 or grid.dtype.kind not in "iu":
        raise ValueError(
            f"OccupancyMetric: expected pred_semantics (X, Y, Z) of whole numbers in frame "
            f"{token}, got {grid.dtype} {grid.shape}"
        )
    # A cast alone would wrap 256 to 0, a class.
    if grid.size and not 0 <= grid.min() <= grid.max() <= FREE:
        raise ValueError(
            f"OccupancyMetric: expected pred_semantics of 0-{FREE} in frame {token}, got "
            f"{grid.min()}-{grid.max()}"
        )
    # What the benchmark's server takes.
    return grid.astype(np.uint8)


def _check_file_name(token: str) -> None:
    """Check that a token names a file of the folder itself: the server looks for it by the token.

    Raises:
        ValueError: It has separators, or others than a file's name may have.
    """
    if re.fullmatch(r"[\w-][\w.-]*", str(token)) is None:
        raise ValueError(
            "OccupancyMetric: expected a token of letters, digits, dots and dashes as the name of "
            f"a file, got {token!r}"
        )


def _write_grid(path: Path, grid: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        # A file, not a name: NumPy would put another suffix behind one that it does not know.
        with temporary.open("wb") as file:
            np.savez_compressed(file, grid)

    write_atomically(path, write)
