"""The polyline generator: the vertices of an element, one number after the other.

VectorMapNet, arXiv 2206.08920, section 3.4, after PolyGen (arXiv 2002.10880). A sequence begins
with its class and the box of the key-point detector, which all of it sees; then come x and y of
the vertices in turn, each of which sees what is before it, and the end.

P sequences, L tokens of the longest, B images, C channels, H W cells of the bird's eye view.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.vector_map.canvas import END, MapCanvas
from internimage.integrations.openmmlab.driving.vector_map.key_points import CellFeatures
from internimage.integrations.openmmlab.driving.vector_map.sequence_layers import (
    LayerCache,
    SequenceLayer,
)

PREFIX = 5
"""Positions before the first token: the class, and x1, y1, x2, y2 of the box."""

_IMPOSSIBLE = -1e9  # not -inf, which is no number times the weight 0 of padding


class PolylineGenerator(BaseModule):
    """Writes the polyline of every box.

    Args:
        in_channels: C of the bird's eye view.
        canvas: whose cells tokens name.
        num_classes: classes of elements.
        embed_dims: of tokens.
        num_layers: of the decoder.
        num_heads: of the attentions.
        feedforward_channels: of the feed-forward networks.
        dropout_rate: in training.
        max_positions: vertices that have a position; no polyline can have more.
    """

    def __init__(
        self,
        in_channels: int,
        canvas: MapCanvas,
        *,
        num_classes: int = 3,
        embed_dims: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 512,
        dropout_rate: float = 0.2,  # appendix C.2
        max_positions: int = 500,
    ) -> None:
        super().__init__()
        self.canvas = canvas
        self.max_positions = max_positions
        self.cells = CellFeatures(in_channels, embed_dims)
        self.label_embed = nn.Embedding(num_classes, embed_dims)
        # The released table has a third row, which nothing looks up.
        self.corner_embed = nn.Embedding(3, embed_dims)
        self.axis_embed = nn.Embedding(2, embed_dims)
        self.value_embed = nn.Embedding(canvas.vocabulary, embed_dims)
        self.position_embed = nn.Embedding(max_positions, embed_dims)
        self.layers = nn.ModuleList(
            SequenceLayer(
                embed_dims,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                dropout_rate=dropout_rate,
            )
            for _ in range(num_layers)
        )
        self.to_logits = nn.Linear(embed_dims, canvas.vocabulary)

    def init_weights(self) -> None:
        """Start matrices as Transformers do; the layers' scalars keep them out at first."""
        super().init_weights()
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, bev: Tensor, counts: Sequence[int], labels: Tensor, boxes: Tensor, tokens: Tensor
    ) -> Tensor:
        """Return the logits (P, L, vocabulary) of each token, from the true ones before it.

        Args:
            bev: (B, C, H, W).
            counts: sequences of each image (B,); those of an image are beside each other.
            labels: classes (P,).
            boxes: (P, 4) int64, x1, y1, x2, y2 in whole cells.
            tokens: (P, L) int64; the last of a row is not read.

        Raises:
            ValueError: a polyline has more vertices than there are positions.
        """
        num_vertices = (tokens.shape[1] - 1) // 2  # the last is the end
        if num_vertices > self.max_positions:
            raise ValueError(
                "PolylineGenerator: expected polylines of at most max_positions = "
                f"{self.max_positions} vertices, got {num_vertices}"
            )
        # Without the last token: each position says the next one.
        rows = torch.cat([self._prefix(labels, boxes), self._embed(tokens[:, :-1], 0)], dim=1)
        mask = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool, device=rows.device)
        mask = mask.tril()
        # The box is known as a whole before the first token.
        mask[:PREFIX, :PREFIX] = True
        rows = self._decode(rows, self._start(bev), counts, mask)  # (P, 5 + L - 1, embed_dims)
        # The last position of the prefix says the first token.
        return self._logits(rows[:, PREFIX - 1 :], 0)

    @torch.no_grad()
    def generate(
        self,
        bev: Tensor,
        counts: Sequence[int],
        labels: Tensor,
        boxes: Tensor,
        *,
        max_vertices: int = 64,
        top_p: float | None = None,
    ) -> Tensor:
        """Write polylines; every position is computed once.

        Args:
            bev: (B, C, H, W).
            counts: sequences of each image (B,); those of an image are beside each other.
            labels: classes (P,).
            boxes: (P, 4) int64, x1, y1, x2, y2 in whole cells.
            max_vertices: a polyline that has not ended by then ends.
            top_p: tokens are drawn among the likeliest that have this probability together
                (nucleus sampling, arXiv 1904.09751), from torch's generator; None: the likeliest.

        Returns:
            Tokens (P, L) int64, 0 from a polyline's end on.
        """
        tokens = boxes.new_zeros(len(boxes), 2 * max_vertices)
        if not len(boxes):
            return tokens
        caches = self._start(bev)
        # Rows of `tokens` that are still written; of them the caches hold keys and values.
        active = torch.arange(len(boxes), device=boxes.device)
        owners = torch.arange(len(bev), device=bev.device).repeat_interleave(
            torch.tensor(list(counts), device=bev.device)
        )
        rows = self._prefix(labels, boxes)
        for step in range(tokens.shape[1]):
            remaining = owners[active].bincount(minlength=len(bev)).tolist()
            # No mask: the prefix sees all of itself, and a token all before it.
            rows = self._decode(rows, caches, remaining, None)
            chosen = _choose(self._logits(rows[:, -1:], step)[:, 0], top_p)
            tokens[active, step] = chosen
            # Most polylines have few vertices: those that ended need no computing.
            going = (chosen != END).nonzero()[:, 0]
            if not len(going):
                break
            if len(going) < len(active):
                active, chosen = active[going], chosen[going]
                for cache in caches:
                    cache.keep(going)
            rows = self._embed(chosen[:, None], step)
        return tokens

    def _start(self, bev: Tensor) -> list[LayerCache]:
        cells = self.cells(bev)
        return [layer.start(cells) for layer in cast(Iterable[SequenceLayer], self.layers)]

    def _decode(
        self, rows: Tensor, caches: list[LayerCache], counts: Sequence[int], mask: Tensor | None
    ) -> Tensor:
        for layer, cache in zip(self.layers, caches, strict=True):
            rows = layer(rows, cache, counts, mask)
        return rows

    def _prefix(self, labels: Tensor, boxes: Tensor) -> Tensor:
        """Embed classes (P,) and boxes (P, 4), (P, 5, embed_dims)."""
        index = torch.arange(4, device=boxes.device)
        # Numbers 0 to 3 are x1, y1, x2, y2.
        corners = self.corner_embed(index // 2) + self.axis_embed(index % 2)
        label = self.label_embed(labels)[:, None]
        # The table of the tokens' values, although cells count from 0 here and from 1 there.
        return torch.cat([label, self.value_embed(boxes) + corners], dim=1)

    def _embed(self, tokens: Tensor, first: int) -> Tensor:
        """Embed tokens (P, L), the first of which is number ``first`` of its sequence."""
        index = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        # x and y of a vertex share its position.
        place = self.axis_embed(index % 2) + self.position_embed(index // 2)
        # The three embeddings of a vertex, section 3.4.
        return self.value_embed(tokens) + place

    def _logits(self, rows: Tensor, first: int) -> Tensor:
        """Return the logits of rows (P, L, embed_dims), the first for token number ``first``.

        A polyline ends in place of an x, and each axis has its own number of cells.
        """
        logits = self.to_logits(rows).float()  # half precision has no -1e9
        values = torch.arange(logits.shape[-1], device=logits.device)
        cells_x, cells_y = self.canvas.cells
        impossible = torch.stack([values > cells_x, (values == END) | (values > cells_y)])
        axis = torch.arange(first, first + rows.shape[1], device=logits.device) % 2
        return logits.masked_fill(impossible[axis], _IMPOSSIBLE)


def generator_loss(logits: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of -log p of the tokens.

    Args:
        logits: (P, L, vocabulary).
        tokens: (P, L) int64.
        weights: (P, L), 0 behind a polyline's end.
    """
    losses = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    # Equation 3 takes the mean of each line; here, as in the original, all lines of all frames have
    # one.
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)


def _choose(logits: Tensor, top_p: float | None) -> Tensor:
    """Return a token for each row (P, vocabulary) of logits."""
    if top_p is None:
        return logits.argmax(dim=-1)
    probabilities, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    # The likeliest token stays, however likely it is.
    probabilities[probabilities.cumsum(dim=-1) - probabilities >= top_p] = 0
    drawn = torch.multinomial(probabilities, 1)
    return order.gather(1, drawn)[:, 0]
