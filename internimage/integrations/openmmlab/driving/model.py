"""The model of all three tasks: backbone, neck, bird's eye view, head.

Shapes: B batch, T frames, N cameras, C channels, H W pixels of an image or cells of the view.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.convert import convert_on_load
from internimage.integrations.openmmlab.driving.geometry import BEVGrid
from internimage.integrations.openmmlab.driving.history import (
    BEVHistory,
    KeptFrame,
    can_bus_of_pose,
    motion_between,
    relative_can_bus,
    stack_history,
)
from internimage.integrations.openmmlab.driving.sample import DrivingSample


@MODELS.register_module()
class BEVModel(BaseModel):
    """Cameras to a bird's eye view to whatever the head makes of it.

    In training the frames of a sample's queue but the last are encoded without gradient, as in a
    test. In a test, frames come one by one, and the model keeps the view of the last one: a sample
    whose ``prev`` is that frame continues it, any other starts anew. The samples of a batch are
    taken in their order, so that the result does not depend on the size of batches. A queue in a
    test brings its own history.

    Weights of the original's three models are renamed as they are loaded.

    Args:
        backbone: config of the backbone.
        neck: config of the neck.
        view: config of the view: a module with ``grid``, ``uses_history``, ``uses_can_bus``,
            ``absolute_can_bus`` and the ``forward`` of ``BEVFormerView``.
        head: config of the head: a module with ``loss(bev, features, samples)``,
            ``predict(bev, features, samples)`` and, for the mode ``tensor``,
            ``forward(bev, features)``. One that answers in metres has ``covered_range``, x_min,
            y_min, (z_min,) x_max, y_max(, z_max), which is that of the view's grid.
        data_preprocessor: config of the preprocessor.
        init_cfg: as everywhere in mmengine.

    Raises:
        ValueError: the ranges of the view and of the head differ.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        neck: dict[str, Any],
        view: dict[str, Any],
        head: dict[str, Any],
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        # mmengine's own default preprocessor neither normalises nor pads.
        super().__init__(
            data_preprocessor=data_preprocessor or {"type": "BEVDataPreprocessor"},
            init_cfg=init_cfg,
        )
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.view = MODELS.build(view)
        self.head = MODELS.build(head)
        # Configs name the range twice. Nothing else would tell that the two differ: a head learns
        # metres of any scale.
        _check_ranges(self.view.grid, self.head)
        # No buffer: it is of the drive that is being tested, not of the weights.
        self._kept: KeptFrame | None = None
        self._has_warned = False
        self._queue_is_checked = False
        # Our own files have none of the names that it looks for, and pass unchanged.
        self.register_load_state_dict_pre_hook(convert_on_load)

    def train(self, mode: bool = True) -> BEVModel:
        """Set the mode; training forgets the kept frame, whose weights are about to change."""
        if mode:
            self.forget()
        return super().train(mode)

    def forget(self) -> None:
        """Forget the kept frame: the next one starts without history."""
        self._kept, self._has_warned = None, False

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[DrivingSample],
        mode: Literal["loss", "predict", "tensor"] = "tensor",
    ) -> Any:
        """Run the model on a preprocessed batch.

        Args:
            inputs: (B, T, N, 3, H, W).
            data_samples: B of them.
            mode: what to return.

        Returns:
            ``loss``: the head's losses. ``predict``: the samples with the head's predictions.
            ``tensor``: the head's raw outputs, without history.

        Raises:
            ValueError: ``mode`` is another word.
        """
        if mode == "loss":
            self._check_queue(inputs.shape[1])
            history = self._encode_queue(inputs, data_samples)
            features = self.extract_features(inputs[:, -1])  # the keyframe's, (B, N, C, h, w) each
            bev = self._build_view(features, data_samples, -1, history)
            return self.head.loss(bev, features, data_samples)
        if mode == "predict":
            features = self.extract_features(inputs[:, -1])
            if not self.view.uses_history:
                bev = self._build_view(features, data_samples, -1, None)
            elif inputs.shape[1] > 1:  # not of our data sets, whose tests have T = 1
                history = self._encode_queue(inputs, data_samples)
                bev = self._build_view(features, data_samples, -1, history)
            else:
                bev = self._continue(features, data_samples)
            return self.head.predict(bev, features, data_samples)
        if mode == "tensor":
            features = self.extract_features(inputs[:, -1])
            return self.head(self._build_view(features, data_samples, -1, None), features)
        raise ValueError(f"BEVModel: expected mode loss, predict or tensor, got {mode!r}")

    def extract_features(self, images: Tensor) -> list[Tensor]:
        """Return the neck's maps (B, N, C, h, w) of images (B, N, 3, H, W), level by level."""
        batch = images.shape[:2]  # (B, N): to the backbone, cameras are images of one batch
        maps = self.neck(self.backbone(images.flatten(0, 1)))
        return [level.unflatten(0, batch) for level in maps]

    def _build_view(
        self,
        features: list[Tensor],
        samples: Sequence[DrivingSample],
        frame: int,
        history: BEVHistory | None,
        before: Sequence[np.ndarray | None] | None = None,
    ) -> Tensor:
        """Return the view (B, C, H, W) of one frame of each sample.

        Args:
            features: of that frame.
            samples: B of them.
            frame: its index in the queue.
            history: of the frames before it.
            before: the readings of the frames before it, per sample (18,) or None; if None they
                are looked up in the queue.
        """
        device = features[0].device
        can_bus = None
        if self.view.uses_can_bus:
            if before is None:
                before = [
                    readings_of(sample, frame - 1) if _continues(sample, frame) else None
                    for sample in samples
                ]
            readings = [readings_of(sample, frame) for sample in samples]
            if not self.view.absolute_can_bus:
                readings = [relative_can_bus(*both) for both in zip(readings, before, strict=True)]
            # float32 after the difference, which in float32 would be rounded a second time: the
            # readers' places, float32 too, are right to 0.1 mm a kilometre.
            can_bus = torch.from_numpy(np.stack(readings)).to(device, torch.float32)
        # (B, N, 4, 4), float64 as the readers made it; `project` decides what is enough.
        ego2img = np.stack([sample.metainfo["ego2img"][frame] for sample in samples])
        return self.view(
            features,
            torch.from_numpy(ego2img).to(device),
            samples[0].metainfo["image_shape"],  # the preprocessor's: one size for the whole batch
            history=history,
            can_bus=can_bus,
        )

    @torch.no_grad()
    def _encode_queue(self, inputs: Tensor, samples: Sequence[DrivingSample]) -> BEVHistory | None:
        """Return what the frames before the last ones know, encoded one after the other."""
        history = None
        if not self.view.uses_history:
            return history
        # As BEVFormer's code does: no gradient (arXiv 2203.17270, section 3.6), no dropout, and
        # batch norms that take no statistics of it.
        with _evaluation_mode(self):
            for frame in range(inputs.shape[1] - 1):
                following = [_continues(sample, frame + 1) for sample in samples]
                if not any(following):  # nobody looks at this frame
                    history = None
                    continue
                features = self.extract_features(inputs[:, frame])
                bev = self._build_view(features, samples, frame, history)
                poses = [sample.metainfo["ego2global"] for sample in samples]  # B times (T, 4, 4)
                history = stack_history(
                    [bev[i] if follows else None for i, follows in enumerate(following)],
                    [motion_between(pose[frame], pose[frame + 1]) for pose in poses],
                )
        return history

    def _continue(self, features: list[Tensor], samples: Sequence[DrivingSample]) -> Tensor:
        """Return the views (B, C, H, W) of samples that come in the order of time."""
        views = []
        # One after the other, because a sample may be the history of the next one. Only the view
        # is: the features, which take most of the time, are of the whole batch.
        for i, sample in enumerate(samples):
            own = [level[i : i + 1] for level in features]
            pose = sample.metainfo["ego2global"][-1]
            kept = self._find_previous(sample)
            history = before = None
            if kept is not None:
                history = stack_history([kept.bev], [motion_between(kept.ego2global, pose)])
                before = kept.can_bus
            view = self._build_view(own, [sample], -1, history, [before])
            self._kept = KeptFrame(
                scene=sample.metainfo["scene"],
                token=sample.metainfo["token"],
                bev=view[0].detach(),  # else each frame would hold the graph of all before it
                ego2global=pose,
                can_bus=readings_of(sample, -1),
            )
            views.append(view)
        return torch.cat(views)

    def _check_queue(self, num_frames: int) -> None:
        """Warn, once, of a data set whose queue is not what the view learns from."""
        if self._queue_is_checked:
            return
        self._queue_is_checked = True
        if self.view.uses_history and num_frames == 1:
            warnings.warn(
                "BEVModel: the view is trained without the history that it uses in a test: its "
                "uses_history is True and the data set's queue_length 1",
                stacklevel=2,
            )
        if not self.view.uses_history and num_frames > 1:
            warnings.warn(
                f"BEVModel: queue_length = {num_frames} of the data set has no effect but to read "
                "frames of history: uses_history of the view is False",
                stacklevel=2,
            )

    def _find_previous(self, sample: DrivingSample) -> KeptFrame | None:
        """Return the kept frame if it is the one before this sample; warn if it should be."""
        scene, token = sample.metainfo["scene"], sample.metainfo["prev"]
        if not token:  # the first frame of its scene
            return None
        kept = self._kept
        if kept is not None and (kept.scene, kept.token) == (scene, token):
            return kept
        # Once: in a shuffled set nearly every frame would tell.
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"BEVModel: frame {sample.metainfo['token']} starts without history, and others "
                f"may: the frame before it, {token}, was not the last one seen; SceneSampler keeps "
                "the frames of a drive together and in order",
                stacklevel=2,
            )
        return None


def readings_of(sample: DrivingSample, frame: int) -> np.ndarray:
    """Return the readings (18,) float64 of a frame of the queue; from its pose if it has none."""
    readings = sample.metainfo.get("can_bus")
    if readings is None:
        return can_bus_of_pose(sample.metainfo["ego2global"][frame])
    return np.asarray(readings[frame], dtype=np.float64)


def _check_ranges(grid: BEVGrid, head: nn.Module) -> None:
    """Compare the range that a head answers in, if it does, with the one that its view shows.

    Raises:
        ValueError: they differ.
    """
    covered = getattr(head, "covered_range", None)
    if covered is None:
        return
    shown: tuple[float, ...] = grid.range
    if len(covered) == 4:  # no heights
        shown = (*shown[:2], *shown[3:5])
    if tuple(covered) != shown:
        raise ValueError(
            f"BEVModel: expected a head for the range of its view, {shown}, got {tuple(covered)}"
        )


def _continues(sample: DrivingSample, frame: int) -> bool:
    """Whether a frame of the queue has the frame before it as history."""
    # Not `prev`: that frame may exist and yet not be in this queue.
    return bool(sample.metainfo["has_prev"][frame])


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch every module to evaluation, and each one back to what it was."""
    # Not model.eval() and model.train(): parts that stay in evaluation would be put to training.
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
