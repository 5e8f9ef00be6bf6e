"""DINO on CB-InternImage: both streams learn, the second predicts.

The neck and the transformer are shared. In training they see both streams, the first one's losses
counting half; in evaluation only the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.necks import ChannelMapper
from mmdet.registry import MODELS
from torch import Tensor

from internimage.integrations.openmmlab.detection.dino import InternImageDINO

StreamMaps = tuple[Sequence[Tensor], Sequence[Tensor]]


@MODELS.register_module()
class CBChannelMapper(ChannelMapper):
    """mmdet's ``ChannelMapper`` for the maps of two streams.

    The arguments are those of ``ChannelMapper``.
    """

    def forward(self, inputs: StreamMaps) -> Any:
        """Return the pyramids of both streams in training, of the second one in evaluation.

        Args:
            inputs: the maps of both streams, each (N, C, H, W).
        """
        lead = super().forward(inputs[1])
        return (super().forward(inputs[0]), lead) if self.training else lead


@MODELS.register_module()
class CBDINO(InternImageDINO):
    """:class:`InternImageDINO` on the two streams of ``CBInternImage``, for any batch size.

    Losses are called as mmdet's with ``stream0.`` or ``stream1.`` in front, the first stream's
    multiplied by its weight already: ``stream0.loss_cls``, ``stream1.d0.dn_loss_bbox``, ...

    Args:
        stream_weights: of the first and the second stream's losses.
        **kwargs: the arguments of :class:`InternImageDINO`; the backbone is a ``CBInternImage``,
            the neck a ``CBChannelMapper``.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, *, stream_weights: Sequence[float] = (0.5, 1.0), **kwargs: Any) -> None:
        if len(stream_weights) != 2 or min(stream_weights) < 0:
            raise ValueError(
                f"CBDINO: expected stream_weights = two numbers >= 0, got {stream_weights}"
            )
        super().__init__(**kwargs)
        self.stream_weights = tuple(stream_weights)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """Return the losses of both streams.

        Args:
            batch_inputs: images (N, 3, H, W).
            batch_data_samples: their targets, mmdet's data samples.
        """
        first, second = self.extract_feat(batch_inputs)
        # The streams as one batch of 2N images: the first N are the first stream's.
        both = tuple(torch.cat(maps) for maps in zip(first, second, strict=True))  # (2N, D, H, W)
        inputs = self.forward_transformer(both, [*batch_data_samples, *batch_data_samples])
        losses: dict[str, Tensor] = {}
        for i, weight in enumerate(self.stream_weights):
            images = slice(i * len(batch_inputs), (i + 1) * len(batch_inputs))
            stream_losses = self.bbox_head.loss(
                hidden_states=inputs["hidden_states"][:, images],  # (layers, N, Q, D)
                references=[boxes[images] for boxes in inputs["references"]],  # (N, Q, 4) each
                enc_outputs_class=inputs["enc_outputs_class"][images],
                enc_outputs_coord=inputs["enc_outputs_coord"][images],
                dn_meta=inputs["dn_meta"],
                batch_data_samples=batch_data_samples,
            )
            for name, value in stream_losses.items():
                # mmengine sums what has "loss" in its name: all of these.
                losses[f"stream{i}.{name}"] = weight * value
        return losses
