"""Pictures of the first frames of every evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from internimage.integrations.openmmlab.driving.pictures.writer import (
    AnimationKind,
    BoardWriter,
    Pages,
)
from internimage.integrations.openmmlab.driving.sample import DrivingSample


@HOOKS.register_module()
class DrivingPicturesHook(Hook):
    """Draws what a model says of the first frames that it is evaluated on.

    Args:
        num_frames: how many, all of the first rank; None draws all frames of all ranks.
        out_dir: folder; None takes ``pictures`` in the work dir.
        score_threshold: what scores less is left out, 0-1.
        animation: "gif" or "png" for an animation of each scene as well.

    Raises:
        ValueError: a number is out of range, or there is no such kind of animation.
    """

    def __init__(
        self,
        num_frames: int | None = 4,  # a page of the full size takes a second
        out_dir: str | None = None,
        score_threshold: float = 0.3,  # mmdet's, where it draws boxes
        animation: AnimationKind | None = None,
    ) -> None:
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"DrivingPicturesHook: expected num_frames >= 1, got {num_frames}")
        if not 0 <= score_threshold <= 1:
            raise ValueError(
                f"DrivingPicturesHook: expected 0 <= score_threshold <= 1, got {score_threshold}"
            )
        if animation not in (None, "gif", "png"):
            raise ValueError(
                f"DrivingPicturesHook: expected animation 'gif', 'png' or None, got {animation!r}"
            )
        self.num_frames = num_frames
        self.out_dir = out_dir
        self.score_threshold = score_threshold
        self.animation = animation
        self._writer: BoardWriter | None = None
        self._count = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin with no frame drawn."""
        self._count = 0
        # Several ranks write into one folder: the names of their frames differ.
        self._writer = None
        if runner.rank == 0 or self.num_frames is None:
            # Wrapped where several processes train it.
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            folder = Path(self.out_dir) if self.out_dir else Path(runner.work_dir) / "pictures"
            self._writer = BoardWriter(
                folder, model.view.grid.range, score_threshold=self.score_threshold
            )

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: list[DrivingSample] | None = None,
    ) -> None:
        """Draw the frames of a batch while there are to be more."""
        if self._writer is None or data_batch is None or outputs is None:
            return
        # The batch as it was loaded, BGR and not normalised: the preprocessor returns another one.
        for inputs, sample in zip(data_batch["inputs"], outputs, strict=True):
            if self.num_frames is not None and self._count >= self.num_frames:
                return
            self._writer.add(inputs, sample)
            self._count += 1

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the animations: the frames of a scene may be those of several ranks."""
        if self.animation is None:
            return
        pages: Pages = {}
        # A collective call: ranks that draw nothing take part, or the others wait for ever.
        for part in all_gather_object(self._writer.pages if self._writer is not None else {}):
            for scene, frames in part.items():
                pages.setdefault(scene, []).extend(frames)
        # It reads the files of all ranks: on several machines the folder has to be a shared one.
        if runner.rank == 0 and self._writer is not None:
            self._writer.animate(self.animation, pages)

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin with no frame drawn."""
        self.before_val_epoch(runner)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: list[DrivingSample] | None = None,
    ) -> None:
        """Draw the frames of a batch while there are to be more."""
        self.after_val_iter(runner, batch_idx, data_batch, outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the animations."""
        self.after_val_epoch(runner, metrics)
