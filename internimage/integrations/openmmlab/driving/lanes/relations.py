"""Which lane leads into which, and which traffic element speaks for which lane.

Letters: B batch, C channels, q rows (lanes), k columns (lanes or traffic elements).
"""

from __future__ import annotations

import torch
from mmdet.models.layers import MLP
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn


class RelationHead(BaseModule):
    """Scores all pairs of a row and a column by what the decoders know of them.

    Args:
        embed_dims: C of both.
        pair_channels: of a row's and of a column's share in a pair.
        init_cfg: that of mmengine's ``BaseModule``.
    """

    def __init__(
        self, embed_dims: int = 256, *, pair_channels: int = 128, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        # Two networks, because "leads into" has a direction; for lanes both get the same states.
        self.rows = MLP(embed_dims, embed_dims, pair_channels, 3)
        self.columns = MLP(embed_dims, embed_dims, pair_channels, 3)
        self.classifier = MLP(2 * pair_channels, 2 * pair_channels, 1, 3)

    def init_weights(self) -> None:
        """Begin with hardly any pair related: among thousands of pairs few are."""
        super().init_weights()
        nn.init.constant_(self.classifier.layers[-1].bias, bias_init_with_prob(0.01))

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the logits (B, q, k) of rows (B, q, C) and columns (B, k, C)."""
        row_share, column_share = self.rows(rows), self.columns(columns)
        size, num_rows, num_columns = len(rows), rows.shape[1], columns.shape[1]
        # (B, q, k, 2 pair_channels)
        pairs = torch.cat(
            [
                row_share[:, :, None].expand(size, num_rows, num_columns, -1),
                column_share[:, None].expand(size, num_rows, num_columns, -1),
            ],
            dim=-1,
        )
        return self.classifier(pairs)[..., 0]
