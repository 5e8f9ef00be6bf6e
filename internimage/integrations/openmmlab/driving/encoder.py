"""BEVFormer's encoder (arXiv 2203.17270): from camera features to a bird's eye view.

Shapes: B batch, Q = H W cells (queries), C channels, N cameras, D points of a pillar, L levels,
h w pixels of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers import LearnedPositionalEncoding
from mmengine.model import BaseModule, xavier_init
from mmengine.registry import MODELS
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.alignment import (
    AlignedHistory,
    align_by_can_bus,
    align_by_pose,
)
from internimage.integrations.openmmlab.driving.attention import (
    ImageFeatures,
    SeenQueries,
    SpatialCrossAttention,
    TemporalSelfAttention,
    gather_seen,
)
from internimage.integrations.openmmlab.driving.geometry import BEVGrid, pillar_points, project
from internimage.integrations.openmmlab.driving.history import CAN_BUS_SIZE, BEVHistory


class BEVFormerLayer(nn.Module):
    """Attention over time, into the cameras, and a feed-forward network, each with its norm.

    Args:
        embed_dims: C.
        feedforward_channels: of the hidden layer.
        num_heads: heads of both attentions.
        num_levels: L.
        num_points: sampling points of a camera attention.
        num_pillar_points: D.
        dropout: probability, in all three.
        double_value_projection: see :class:`TemporalSelfAttention`.
    """

    def __init__(
        self,
        embed_dims: int,
        *,
        feedforward_channels: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        num_pillar_points: int,
        dropout: float,
        double_value_projection: bool,
    ) -> None:
        super().__init__()
        # Lists of two, one and three, because their numbers are names of the released weights
        # (`attentions.0`, `norms.2`).
        self.attentions = nn.ModuleList(
            [
                TemporalSelfAttention(
                    embed_dims,
                    num_heads=num_heads,
                    dropout=dropout,
                    double_value_projection=double_value_projection,
                ),
                SpatialCrossAttention(
                    embed_dims,
                    num_heads=num_heads,
                    num_levels=num_levels,
                    num_points=num_points,
                    num_pillar_points=num_pillar_points,
                    dropout=dropout,
                ),
            ]
        )
        self.ffns = nn.ModuleList([FFN(embed_dims, feedforward_channels, ffn_drop=dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(embed_dims) for _ in range(3)])
        _draw_linear_layers(self.ffns)

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        history: AlignedHistory,
        features: ImageFeatures,
        reference: Tensor,
        queries: SeenQueries,
        shape: tuple[int, int],
    ) -> Tensor:
        """Return the queries (B, Q, C) of the next layer; the arguments are the attentions'."""
        temporal, spatial = self.attentions
        slots = history.slots(query)  # (B, 2, Q, C)
        # Norms stand behind: each attention, and mmcv's FFN, adds its own input. The position goes
        # to the first attention alone, as in BEVFormer's code.
        query = self.norms[0](temporal(query, position, slots, history.reference, shape))
        query = self.norms[1](spatial(query, features, reference, queries))
        return self.norms[2](self.ffns[0](query))


class BEVFormerEncoder(nn.Module):
    """The layers, one after the other.

    Args:
        num_layers: how many.
        **layer: of :class:`BEVFormerLayer`.
    """

    def __init__(self, num_layers: int, **layer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([BEVFormerLayer(**layer) for _ in range(num_layers)])

    def forward(self, query: Tensor, *arguments: Any) -> Tensor:
        """Return (B, Q, C); the arguments are those of a layer."""
        for layer in self.layers:
            query = layer(query, *arguments)
        return query


@MODELS.register_module()
class BEVFormerView(BaseModule):
    """Feature maps of cameras in, a bird's eye view out.

    Args:
        grid: range and shape of :class:`BEVGrid`.
        embed_dims: C, of the feature maps and of the view.
        num_cameras: N.
        num_levels: L.
        num_layers: of the encoder.
        num_pillar_points: D.
        num_points: sampling points of a camera attention, a multiple of D.
        num_heads: of all attentions.
        feedforward_channels: hidden channels of a layer; None takes 2 C.
        dropout: probability.
        uses_history: whether the view takes the one of the frame before.
        motion: how that is brought to the current frame: ``"ego_pose"`` warps it by the poses of
            the ego; ``"can_bus"`` turns it by the yaw and shifts where each cell looks, in the axes
            of a grid whose y is forward, as the released models were trained.
        legacy_shift: with ``motion="can_bus"``: shift where the current view is looked up as well,
            as the released occupancy model was trained.
        rotation_centre: with ``motion="can_bus"``: (x, y) in cells that the view is turned about.
        uses_can_bus: whether readings of the ego's motion are added to the queries.
        absolute_can_bus: take the readings with their global translation, as the released
            OpenLane-V2 model was trained.
        double_value_projection: see :class:`TemporalSelfAttention`.
        init_cfg: as everywhere in mmengine.

    Raises:
        ValueError: numbers do not fit, ``motion`` is another word, or a setting has no effect.
    """

    def __init__(
        self,
        grid: BEVGrid | dict[str, Any],
        embed_dims: int = 256,
        *,
        num_cameras: int = 6,
        num_levels: int = 4,
        num_layers: int = 6,  # 6 layers, 4 points: section 4.2
        num_pillar_points: int = 4,
        # For all points of a pillar together, as in BEVFormer's code: two each of four, where the
        # paper says four each.
        num_points: int = 8,
        num_heads: int = 8,
        feedforward_channels: int | None = None,
        dropout: float = 0.1,
        uses_history: bool = True,
        motion: Literal["ego_pose", "can_bus"] = "ego_pose",
        legacy_shift: bool = False,
        rotation_centre: tuple[float, float] | None = None,
        uses_can_bus: bool = True,
        absolute_can_bus: bool = False,
        double_value_projection: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, number in (
            ("embed_dims", embed_dims),
            ("num_cameras", num_cameras),
            ("num_levels", num_levels),
            ("num_layers", num_layers),
            ("num_pillar_points", num_pillar_points),
            ("num_points", num_points),
            ("num_heads", num_heads),
            ("feedforward_channels", 1 if feedforward_channels is None else feedforward_channels),
        ):
            if not isinstance(number, int) or number < 1:
                raise ValueError(
                    f"BEVFormerView: expected {name} to be a whole number >= 1, got {number!r}"
                )
        if motion not in ("ego_pose", "can_bus"):
            raise ValueError(f"BEVFormerView: expected motion ego_pose or can_bus, got {motion}")
        if motion == "ego_pose" and (legacy_shift or rotation_centre is not None):
            raise ValueError(
                "BEVFormerView: expected legacy_shift and rotation_centre with motion = can_bus "
                f"only, got motion = {motion}"
            )
        if motion == "can_bus" and not (uses_history and uses_can_bus and not absolute_can_bus):
            raise ValueError(
                "BEVFormerView: expected uses_history = True, uses_can_bus = True and "
                f"absolute_can_bus = False with motion = can_bus, got {uses_history}, "
                f"{uses_can_bus} and {absolute_can_bus}"
            )
        if absolute_can_bus and not uses_can_bus:
            raise ValueError(
                "BEVFormerView: expected uses_can_bus = True with absolute_can_bus, got False"
            )
        # Half of a cell's positional code is its column's, half its row's.
        if embed_dims % 2:
            raise ValueError(f"BEVFormerView: expected embed_dims to be even, got {embed_dims}")
        self.grid = grid if isinstance(grid, BEVGrid) else BEVGrid(**grid)
        self.embed_dims, self.num_cameras, self.num_levels = embed_dims, num_cameras, num_levels
        self.uses_history, self.uses_can_bus = uses_history, uses_can_bus
        self.absolute_can_bus = absolute_can_bus
        self.motion, self.legacy_shift = motion, legacy_shift
        height, width = self.grid.shape
        # The middle of the view, which is where the ego stands in the grid of the released model.
        self.rotation_centre = rotation_centre or (width / 2, height / 2)
        # Not persistent: it follows from the grid, and released files do not have it.
        points = pillar_points(self.grid, num_pillar_points).flatten(0, 1)
        self.register_buffer("pillar_points", points, persistent=False)

        # From here on names are keys of the released checkpoints.
        self.bev_embedding = nn.Embedding(height * width, embed_dims)  # (Q, C), section 3.2
        self.positional_encoding = LearnedPositionalEncoding(embed_dims // 2, height, width)
        self.cams_embeds = nn.Parameter(torch.empty(num_cameras, embed_dims))
        self.level_embeds = nn.Parameter(torch.empty(num_levels, embed_dims))
        if uses_can_bus:
            self.can_bus_mlp = _can_bus_mlp(embed_dims)
        self.encoder = BEVFormerEncoder(
            num_layers,
            embed_dims=embed_dims,
            feedforward_channels=feedforward_channels or 2 * embed_dims,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
            num_pillar_points=num_pillar_points,
            dropout=dropout,
            double_value_projection=double_value_projection,
        )
        # As large as what they are added to: normalised features.
        nn.init.normal_(self.cams_embeds)
        nn.init.normal_(self.level_embeds)

    def forward(
        self,
        features: Sequence[Tensor],
        ego2img: Tensor,
        image_shape: tuple[int, int],
        *,
        history: BEVHistory | None = None,
        can_bus: Tensor | None = None,
    ) -> Tensor:
        """Build the bird's eye view of a batch.

        Args:
            features: per level (B, N, C, h, w).
            ego2img: (B, N, 4, 4); see :func:`project`.
            image_shape: height and width of the network's input in pixels, padding included.
            history: of the frames before; None if no sample has any.
            can_bus: (B, 18), translation and yaw in degrees relative to the frame before unless
                the view takes absolute ones. Needed if the view uses them.

        Returns:
            (B, C, H, W).

        Raises:
            ValueError: numbers of levels, cameras or channels differ from the view's, or readings
                or history are missing or not wanted.
        """
        self._check(features, ego2img, history, can_bus)
        query = self.bev_embedding.weight.expand(len(ego2img), -1, -1)  # (B, Q, C)
        if self.uses_can_bus and can_bus is not None:
            # The same summand for all cells: motion is the ego's.
            query = query + self.can_bus_mlp(can_bus.to(query.dtype))[:, None]
        # mmdet's code takes a mask for the sake of its shape and reads nothing of it.
        mask = query.new_zeros(1, *self.grid.shape)
        position = self.positional_encoding(mask).flatten(2).transpose(1, 2)  # (1, Q, C)
        # Without history nothing is shifted or turned either, whatever `motion` says: a first frame
        # has not moved.
        if history is None or can_bus is None or self.motion == "ego_pose":
            aligned = align_by_pose(history, query, self.grid)
        else:
            aligned = align_by_can_bus(
                history,
                query,
                self.grid,
                can_bus,
                centre=self.rotation_centre,
                shift_current=self.legacy_shift,
            )
        projection = project(self.pillar_points, ego2img, image_shape)  # (B, N, Q, D, 2)
        view = self.encoder(
            query,
            position,
            aligned,
            self._flatten(features),
            projection.points,
            # A camera attends with all points of a pillar if it sees any of them.
            gather_seen(projection.visible.any(dim=-1)),
            self.grid.shape,
        )
        # (B, Q, C) to (B, C, H, W)
        return view.transpose(1, 2).unflatten(2, self.grid.shape)

    def _flatten(self, features: Sequence[Tensor]) -> ImageFeatures:
        """Put the levels of each camera in one row, each told of its camera and level."""
        levels = [  # (B, N, h w, C) each
            level.flatten(3).transpose(2, 3) + self.cams_embeds[:, None] + embedding
            for level, embedding in zip(features, self.level_embeds, strict=True)
        ]
        shapes = [(level.shape[-2], level.shape[-1]) for level in features]
        # (B, N, K, C): the kernel finds a level by where it begins.
        return ImageFeatures(torch.cat(levels, dim=2), shapes)

    def _check(
        self,
        features: Sequence[Tensor],
        ego2img: Tensor,
        history: BEVHistory | None,
        can_bus: Tensor | None,
    ) -> None:
        expected = (len(ego2img), self.num_cameras, self.embed_dims)
        shapes = [tuple(level.shape[:3]) for level in features]
        if shapes != [expected] * self.num_levels or ego2img.shape[1] != self.num_cameras:
            raise ValueError(
                f"BEVFormerView: expected {self.num_levels} levels of (batch, cameras, channels) = "
                f"{expected} and matrices of {self.num_cameras} cameras, got {shapes} and "
                f"{ego2img.shape[1]}"
            )
        readings = None if can_bus is None else tuple(can_bus.shape)
        if self.uses_can_bus and readings != (len(ego2img), CAN_BUS_SIZE):
            raise ValueError(
                "BEVFormerView: expected can_bus of shape (batch, readings) = "
                f"{(len(ego2img), CAN_BUS_SIZE)}, got {readings}"
            )
        if history is not None and not self.uses_history:
            raise ValueError("BEVFormerView: expected no history with uses_history = False, got it")


def _can_bus_mlp(embed_dims: int) -> nn.Sequential:
    """Readings (B, 18) to a summand of all queries (B, C); the names are the released ones."""
    mlp = nn.Sequential(
        nn.Linear(CAN_BUS_SIZE, embed_dims // 2),
        nn.ReLU(inplace=True),
        nn.Linear(embed_dims // 2, embed_dims),
        # Before the norm as well, which therefore sees no negative numbers: the released one was
        # trained so.
        nn.ReLU(inplace=True),
    )
    mlp.add_module("norm", nn.LayerNorm(embed_dims))
    _draw_linear_layers(mlp)
    return mlp


def _draw_linear_layers(module: nn.Module) -> None:
    # BEVFormer draws all matrices of its transformer so; PyTorch's own start is another one.
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            xavier_init(layer, distribution="uniform")
