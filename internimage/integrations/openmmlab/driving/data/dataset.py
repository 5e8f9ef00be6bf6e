"""The data set of drives: frames in order, and the frames before one as its history."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from internimage.integrations.openmmlab.driving.data.frames import naming_file, order_frames


class DrivingDataset(BaseDataset):
    """Frames of drives, each with its history; a data set of a task says how they are read.

    A subclass implements :meth:`load_frames`. An item is what the pipeline, which ends with
    ``PackDrivingInputs``, makes of a frame: ``inputs`` (T, N, 3, H, W) and ``data_samples``, the
    sample of the last frame with ``ego2img``, ``ego2global``, ``has_prev`` and ``can_bus`` of all
    T. T frames, N cameras, images H x W.

    Args:
        queue_length: T of a training item. The T - 1 frames before the last are drawn, in order,
            from the T before it, as BEVFormer does (arXiv 2203.17270, section 3.6), which varies
            the time between two. A frame that a scene does not have is the first one, repeated,
            without history. An item of a test has T = 1: there the model keeps the history.
        **kwargs: those of mmengine's ``BaseDataset``.

    Raises:
        ValueError: ``queue_length`` is below 1, there is no frame, or frames are out of order.

    Attributes:
        TRUTH: the key of a frame's annotation. Tokens of frames without it are ``without_truth`` of
            the meta information: a metric that would score them refuses the set before the run.
    """

    TRUTH: ClassVar[str] = ""

    def __init__(self, *, queue_length: int = 1, **kwargs: Any) -> None:
        if queue_length < 1:
            raise ValueError(
                f"{type(self).__name__}: expected queue_length >= 1, got {queue_length}"
            )
        self.queue_length = queue_length
        super().__init__(**kwargs)

    def load_frames(self) -> list[dict[str, Any]]:
        """Read the frames, in any order.

        Each holds ``token``, ``scene``, ``timestamp`` (int, microseconds), ``cameras`` (N names),
        ``img_paths`` (N), ``ego2img`` (N, 4, 4) float64 in pixels of the files, ``image_sizes``
        (N pairs H, W the calibration is for, or None), ``ego2global`` (4, 4) float64, maybe
        ``prev``, ``can_bus`` (18,) float32, and the annotations as ``ann_*``.
        """
        raise NotImplementedError

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return the frames of :meth:`load_frames` scene by scene, in the order of time.

        Raises:
            ValueError: There is none, or they are out of order.
        """
        with naming_file(self.ann_file):
            frames = order_frames(self.load_frames())
        if not frames:
            raise ValueError(
                f"{type(self).__name__}: expected at least one frame, got none in {self.ann_file}"
            )
        # mmengine's `metainfo` is a copy: what is written there is lost.
        self._metainfo["without_truth"] = [
            frame["token"] for frame in frames if self.TRUTH and self.TRUTH not in frame
        ]
        return frames

    def prepare_data(self, idx: int) -> dict[str, Any]:
        """Return the packed item of frame ``idx`` with its history."""
        frames = self._queue(idx)
        packed: list[dict[str, Any]] = []
        has_prev: list[bool] = []
        for number, frame in enumerate(frames):
            repeated = number > 0 and frame["token"] == frames[number - 1]["token"]
            has_prev.append(number > 0 and not repeated)
            frame["is_history"] = number < len(frames) - 1
            # Nobody looks at it, but the frames of a batch are of one number.
            if repeated and frame["is_history"]:
                packed.append(packed[-1])
            else:
                packed.append(self.pipeline(frame))
        samples = [item["data_samples"] for item in packed]
        # (T, N, 4, 4), (T, 4, 4) and (T, 18); of all else the last frame's is enough.
        together = {
            name: np.stack([sample.metainfo[name] for sample in samples])
            for name in ("ego2img", "ego2global", "can_bus")
            if name in samples[-1].metainfo
        }
        samples[-1].set_metainfo({**together, "has_prev": np.array(has_prev)})
        return {
            "inputs": torch.stack([item["inputs"] for item in packed]),  # (T, N, 3, H, W)
            "data_samples": samples[-1],
        }

    def _queue(self, idx: int) -> list[dict[str, Any]]:
        """Return the T frames of an item, the earliest first."""
        last = self.get_data_info(idx)
        if self.test_mode or self.queue_length == 1:
            return [last]
        before: list[dict[str, Any]] = []
        # Frames lie scene by scene in the order of time, so `idx` of them come before this one. A
        # scene begins where `prev` is not the one before in the list.
        while len(before) < min(self.queue_length, idx):
            earlier = self.get_data_info(idx - len(before) - 1)
            if earlier["token"] != (before[0] if before else last)["prev"]:
                break
            before.insert(0, earlier)
        if len(before) == self.queue_length:  # one too many, so that the distance in time varies
            # NumPy's generator, which mmengine seeds in every worker by its number.
            del before[np.random.randint(self.queue_length)]
        # Not the last one itself: a pipeline changes what it is given.
        first = before[0] if before else self.get_data_info(idx)
        return [first] * (self.queue_length - 1 - len(before)) + [*before, last]
