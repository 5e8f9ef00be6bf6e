"""The lane decoder: queries that look into the bird's-eye view and answer with Bezier curves.

Letters: B batch, C channels, H W cells of the BEV, Q queries, L layers, M control points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.models.layers import DeformableDetrTransformerDecoder, inverse_sigmoid
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.bezier import NUM_CONTROL_POINTS
from internimage.integrations.openmmlab.driving.deformable import start_deformable_decoder
from internimage.integrations.openmmlab.driving.geometry import are_bounds


class LaneOutputs(NamedTuple):
    """What the decoder says after each of its layers.

    Attributes:
        logits: (L, B, Q, 1), of being a lane.
        control_points: (L, B, Q, 3 M), x, y, z of each point in ego metres.
        states: (L, B, Q, C).
    """

    logits: Tensor
    control_points: Tensor
    states: Tensor


class LaneDecoder(BaseModule):
    """Decodes directed lanes from a bird's-eye view (OpenLane-V2, arXiv 2304.10440).

    A query has a reference point, which stays where it is in all layers: its x and y are where the
    query looks, and each control point is an offset to it. The layers are those of Deformable DETR
    (arXiv 2010.04159), on one level.

    Args:
        range: x0, y0, z0, x1, y1, z1 of the BEV in ego metres; control points lie within.
        embed_dims: C.
        num_queries: Q.
        num_layers: L.
        num_heads: of the attentions; divides C.
        num_points: that a head samples.
        feedforward_channels: of the feed-forward networks.
        dropout: after attentions and in feed-forward networks, 0-1.
        init_cfg: that of mmengine's ``BaseModule``.

    Raises:
        ValueError: ``range`` is none.
    """

    def __init__(
        self,
        range: tuple[float, ...],
        *,
        embed_dims: int = 256,
        num_queries: int = 100,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(range) != 6 or not are_bounds(range):
            raise ValueError(
                "LaneDecoder: expected range = x0, y0, z0, x1, y1, z1 with every minimum below its "
                f"maximum, got {tuple(range)}"
            )
        bounds = torch.tensor(range, dtype=torch.float32).view(2, 3)  # minima, maxima
        # Not of the weights: they come from the config, and the released files do not hold them.
        self.register_buffer("origin", bounds[0], persistent=False)
        self.register_buffer("extent", bounds[1] - bounds[0], persistent=False)
        # mmdet's DETR layers take the batch first and nothing else.
        attention = {"embed_dims": embed_dims, "num_heads": num_heads, "batch_first": True}
        self.decoder = DeformableDetrTransformerDecoder(
            num_layers=num_layers,
            return_intermediate=True,  # the loss is of every layer
            # mmdet's default is a norm behind the last layer, which it then refuses for this
            # decoder.
            post_norm_cfg=None,
            layer_cfg={
                "self_attn_cfg": {
                    **attention,
                    "attn_drop": dropout,
                    "dropout_layer": {"type": "Dropout", "drop_prob": dropout},
                },
                # One level: the view.
                "cross_attn_cfg": {
                    **attention,
                    "dropout": dropout,
                    "num_levels": 1,
                    "num_points": num_points,
                },
                "ffn_cfg": {
                    "embed_dims": embed_dims,
                    "feedforward_channels": feedforward_channels,
                    "ffn_drop": dropout,
                },
            },
        )
        # Position before content, as in mmdet's DETRs and in the released file.
        self.query_embedding = nn.Embedding(num_queries, 2 * embed_dims)
        self.reference_points = nn.Linear(embed_dims, 3)
        self.cls_branches = nn.ModuleList(_class_branch(embed_dims) for _ in self.decoder.layers)
        self.reg_branches = nn.ModuleList(_control_branch(embed_dims) for _ in self.decoder.layers)

    def init_weights(self) -> None:
        """Begin with curves that are a point, spread over the range, and with hardly any lane."""
        super().init_weights()
        start_deformable_decoder(self.decoder, self.reference_points)
        for branch in self.cls_branches:
            # The prior of the focal loss (arXiv 1708.02002, section 3.3): without it, the many
            # queries without a lane drown all else at first.
            nn.init.constant_(list(branch.parameters())[-1], bias_init_with_prob(0.01))
        # No offset, so that all points of a curve begin at its reference.
        for branch in self.reg_branches:
            for parameter in list(branch.parameters())[-2:]:
                nn.init.zeros_(parameter)

    def forward(self, bev: Tensor) -> LaneOutputs:
        """Decode the lanes.

        Args:
            bev: (B, C, H, W).
        """
        size, _, height, width = bev.shape
        position, content = self.query_embedding.weight[None].expand(size, -1, -1).chunk(2, dim=-1)
        reference = self.reference_points(position).sigmoid()  # (B, Q, 3)
        # No `reg_branches`: with them mmdet would move the references from layer to layer.
        states, _ = self.decoder(
            query=content,
            query_pos=position,
            value=bev.flatten(2).transpose(1, 2),  # (B, H W, C)
            key_padding_mask=None,
            reference_points=reference[..., :2],  # the view has no height
            spatial_shapes=torch.tensor([[height, width]], device=bev.device),
            level_start_index=torch.zeros(1, dtype=torch.long, device=bev.device),
            valid_ratios=bev.new_ones(size, 1, 2),  # a view has no padding
        )
        logits, control_points = [], []
        # Offsets are added before the sigmoid, so that no point leaves the range (appendix A.3).
        centre = inverse_sigmoid(reference)[:, :, None]  # (B, Q, 1, 3)
        for state, classes, offsets in zip(
            states, self.cls_branches, self.reg_branches, strict=True
        ):
            logits.append(classes(state))
            # (B, Q, M, 3), fractions of the range.
            places = (offsets(state).unflatten(-1, (-1, 3)) + centre).sigmoid()
            control_points.append((places * self.extent + self.origin).flatten(-2))
        return LaneOutputs(torch.stack(logits), torch.stack(control_points), states)


def _class_branch(channels: int) -> nn.Sequential:
    # A norm in this branch and none in the next: so are the released weights.
    hidden: list[nn.Module] = []
    for _ in range(2):
        hidden += [nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*hidden, nn.Linear(channels, 1))


def _control_branch(channels: int) -> nn.Sequential:
    hidden: list[nn.Module] = []
    for _ in range(2):
        hidden += [nn.Linear(channels, channels), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(channels, 3 * NUM_CONTROL_POINTS))
