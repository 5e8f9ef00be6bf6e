"""The key-point detector: which elements a map has, and the two corners of the box of each.

VectorMapNet, arXiv 2206.08920, section 3.3: queries that look into the bird's eye view, after
Deformable DETR (arXiv 2010.04159) but with two queries an element and without an encoder.

B batch, C channels, H W cells of the bird's eye view, E elements, Q = 2 E queries.
"""

from __future__ import annotations

import torch
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import inverse_sigmoid
from mmengine.model import BaseModule, bias_init_with_prob, constant_init
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.deformable import start_deformable_decoder
from internimage.integrations.openmmlab.driving.vector_map.canvas import MapCanvas

# The box, which scored best of three kinds of key points (Table 3).
CORNERS = 2


class CellFeatures(nn.Module):
    """Projects a bird's eye view and tells every cell where it is.

    Args:
        in_channels: C of the view.
        embed_dims: of the result.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, embed_dims, 1)
        self.coordinates = nn.Linear(2, embed_dims)

    def forward(self, bev: Tensor) -> Tensor:
        """Return the cells (B, H W, embed_dims) of a view (B, C, H, W)."""
        height, width = bev.shape[-2:]
        # Row and column run from -1 to 1, the outer cells' centres.
        rows = torch.linspace(-1, 1, height, device=bev.device)
        columns = torch.linspace(-1, 1, width, device=bev.device)
        # (H, W, 2): row before column, though boxes have x before y.
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        cells = self.projection(bev).permute(0, 2, 3, 1) + self.coordinates(grid.to(bev.dtype))
        return cells.flatten(1, 2)


class KeyPointLayer(nn.Module):
    """Self-attention, a look into the view and a feed-forward network, each after its norm.

    Args:
        embed_dims: of queries and cells.
        num_heads: of both attentions.
        num_points: cells that a head looks at.
        feedforward_channels: of the network's hidden layer.
        dropout_rate: of all three.
    """

    def __init__(
        self,
        embed_dims: int,
        *,
        num_heads: int,
        num_points: int,
        feedforward_channels: int,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(
            embed_dims,
            num_heads,
            attn_drop=dropout_rate,
            dropout_layer={"type": "Dropout", "drop_prob": dropout_rate},
            batch_first=True,
        )
        self.cross_attn = MultiScaleDeformableAttention(
            embed_dims,
            num_heads,
            num_levels=1,
            num_points=num_points,
            dropout=dropout_rate,
            batch_first=True,
        )
        self.ffn = FFN(embed_dims, feedforward_channels, ffn_drop=dropout_rate)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self, query: Tensor, position: Tensor, cells: Tensor, references: Tensor, shape: Tensor
    ) -> Tensor:
        """Return the next queries.

        Args:
            query: (B, Q, embed_dims).
            position: (B, Q, embed_dims), added where queries attend.
            cells: (B, H W, embed_dims).
            references: (B, Q, 1, 2), where queries look, as fractions x and y of the view.
            shape: (1, 2), H and W.
        """
        # Norms stand before, so the identity is said; mmcv would add the normed query. It gives the
        # keys the position as well, the values not.
        query = self.self_attn(self.norms[0](query), identity=query, query_pos=position)
        query = self.cross_attn(
            self.norms[1](query),
            value=cells,
            identity=query,
            query_pos=position,
            reference_points=references,
            spatial_shapes=shape,
            level_start_index=shape.new_zeros(1),
        )
        return self.ffn(self.norms[2](query), identity=query)


class KeyPointDetector(BaseModule):
    """Finds the elements of a map: their classes and their boxes.

    Args:
        in_channels: C of the bird's eye view.
        canvas: whose cells boxes are measured in.
        num_classes: classes of elements.
        embed_dims: of queries.
        num_queries: E, elements that can be found.
        num_layers: of the decoder.
        num_heads: of the attentions.
        num_points: cells that a head looks at.
        feedforward_channels: of the feed-forward networks.
        dropout_rate: in training.
    """

    def __init__(
        self,
        in_channels: int,
        canvas: MapCanvas,
        *,
        num_classes: int = 3,
        embed_dims: int = 256,
        num_queries: int = 120,  # the released model's; the paper's are 100
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 512,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.canvas = canvas
        self.cells = CellFeatures(in_channels, embed_dims)
        # Content and position of a query, of the element and of the corner, are added.
        self.element_embed = nn.Embedding(num_queries, 2 * embed_dims)
        self.corner_embed = nn.Embedding(CORNERS, 2 * embed_dims)
        self.references = nn.Linear(embed_dims, 2)
        self.layers = nn.ModuleList(
            KeyPointLayer(
                embed_dims,
                num_heads=num_heads,
                num_points=num_points,
                feedforward_channels=feedforward_channels,
                dropout_rate=dropout_rate,
            )
            for _ in range(num_layers)
        )
        # The layers share their branches.
        self.cls_branch = nn.Linear(CORNERS * embed_dims, num_classes)
        self.reg_branch = nn.Sequential(
            *[
                layer
                for _ in range(2)
                for layer in (
                    nn.Linear(embed_dims, embed_dims),
                    nn.LayerNorm(embed_dims),
                    nn.ReLU(),
                )
            ],
            nn.Linear(embed_dims, 2),
        )

    def init_weights(self) -> None:
        """Start as Deformable DETR does: no class is likely, and boxes are their references."""
        super().init_weights()
        start_deformable_decoder(self.layers, self.references)
        nn.init.constant_(self.cls_branch.bias, bias_init_with_prob(0.01))
        constant_init(self.reg_branch[-1], 0, bias=0)

    def forward(self, bev: Tensor) -> tuple[Tensor, Tensor]:
        """Return what every layer finds.

        Args:
            bev: (B, C, H, W).

        Returns:
            Logits of the classes (layers, B, E, classes), and boxes (layers, B, E, 4), x1, y1,
            x2, y2 in cells of the canvas; the corners may be in any order.
        """
        cells = self.cells(bev)
        batch, shape = len(bev), torch.tensor([bev.shape[-2:]], device=bev.device)
        # e_i + e_j of section 3.3: the two corners of an element share its part.
        table = self.element_embed.weight[:, None] + self.corner_embed.weight  # (E, 2, 2 C)
        position, content = table.flatten(0, 1).expand(batch, -1, -1).chunk(2, dim=-1)
        # The layers do not refine them.
        references = self.references(position).sigmoid()  # (B, Q, 2)

        scores, boxes, query = [], [], content
        for layer in self.layers:
            query = layer(query, position, cells, references[:, :, None], shape)
            # The class is that of both corners together, a coordinate that of its own corner.
            pairs = query.unflatten(1, (-1, CORNERS))  # (B, E, 2, C)
            scores.append(self.cls_branch(pairs.flatten(2)))
            # Deformable DETR's appendix A.3: an offset to the reference, within 0 to 1.
            points = (self.reg_branch(query) + inverse_sigmoid(references)).sigmoid()
            points = points * points.new_tensor(self.canvas.cells)
            boxes.append(points.unflatten(1, (-1, CORNERS)).flatten(2))
        return torch.stack(scores), torch.stack(boxes)
