"""The head of a vectorised map: boxes of elements, and a polyline for each.

B batch, C channels, P elements of all frames, L tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from internimage.integrations.openmmlab.driving.sample import DrivingSample
from internimage.integrations.openmmlab.driving.vector_map.canvas import END, MapCanvas
from internimage.integrations.openmmlab.driving.vector_map.generator import (
    PolylineGenerator,
    generator_loss,
)
from internimage.integrations.openmmlab.driving.vector_map.key_points import KeyPointDetector
from internimage.integrations.openmmlab.driving.vector_map.matching import KeyPointLoss
from internimage.integrations.openmmlab.driving.vector_map.targets import (
    ElementTarget,
    encode_elements,
)


@MODELS.register_module()
class VectorMapHead(BaseModule):
    """VectorMapNet's two parts (arXiv 2206.08920) on one bird's eye view.

    Args:
        in_channels: C of the view.
        canvas: arguments of ``MapCanvas``.
        num_classes: classes of elements.
        detector: further arguments of ``KeyPointDetector``.
        generator: further arguments of ``PolylineGenerator``.
        labels_by_length: classes whose vertices are weighed by the length of edges: boundaries.
        noise_probability: of a number of boxes and of the generator's inputs to be disturbed in
            training, so that it learns to go on from what is not exact.
        noise_std: of that, in cells along x and along y.
        max_elements: elements of a frame that a polyline is written for, the best scored.
        max_vertices: of a polyline.
        top_p: see ``PolylineGenerator.generate``. The original draws, with 0.9; the likeliest
            tokens give the same map every time.
        loss: arguments of ``KeyPointLoss``.
        init_cfg: as everywhere in mmengine.

    Raises:
        ValueError: a probability is not within 0 to 1, or a number is too small.
    """

    def __init__(
        self,
        in_channels: int = 128,
        *,
        canvas: dict[str, Any] | None = None,
        num_classes: int = 3,
        detector: dict[str, Any] | None = None,
        generator: dict[str, Any] | None = None,
        labels_by_length: Sequence[int] = (2,),
        # The paper's, appendix C.2; the deviations and the two maxima are the original's.
        noise_probability: float = 0.3,
        noise_std: Sequence[float] = (2.0, 1.0),
        max_elements: int = 35,
        max_vertices: int = 64,
        top_p: float | None = None,
        loss: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 0 <= noise_probability <= 1 or not (top_p is None or 0 < top_p <= 1):
            raise ValueError(
                "VectorMapHead: expected 0 <= noise_probability <= 1 and 0 < top_p <= 1 or None, "
                f"got {noise_probability} and {top_p}"
            )
        if len(noise_std) != 2 or min(noise_std) < 0:
            raise ValueError(
                f"VectorMapHead: expected noise_std = two numbers of 0 or more, got {noise_std}"
            )
        if not all(0 <= label < num_classes for label in labels_by_length):
            raise ValueError(
                f"VectorMapHead: expected labels_by_length within 0 to {num_classes - 1}, got "
                f"{labels_by_length}"
            )
        if min(max_elements, max_vertices) < 1:
            raise ValueError(
                "VectorMapHead: expected max_elements and max_vertices of 1 or more, got "
                f"{max_elements} and {max_vertices}"
            )
        self.canvas = MapCanvas(**canvas or {})
        self.covered_range = self.canvas.range  # BEVModel compares it with the view's
        self.num_classes = num_classes
        self.labels_by_length = tuple(labels_by_length)
        self.noise_probability = noise_probability
        self.max_elements, self.max_vertices, self.top_p = max_elements, max_vertices, top_p
        self.detector = KeyPointDetector(
            in_channels, self.canvas, num_classes=num_classes, **detector or {}
        )
        self.generator = PolylineGenerator(
            in_channels, self.canvas, num_classes=num_classes, **generator or {}
        )
        if max_vertices > self.generator.max_positions:
            raise ValueError(
                "VectorMapHead: expected max_vertices of at most the generator's max_positions = "
                f"{self.generator.max_positions}, got {max_vertices}"
            )
        self.loss_elements = KeyPointLoss(**loss or {})
        self.noise_std: Tensor
        self.register_buffer("noise_std", torch.tensor(list(noise_std)), persistent=False)

    def forward(self, bev: Tensor, features: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (B, M) of the M best elements, their classes (B, M) and tokens (B, M, L).

        Args:
            bev: (B, C, H, W).
            features: of the images; not read.
        """
        scores, boxes = self.detector(bev)
        best, labels, corners = self.select(scores[-1], boxes[-1])
        # As targets are cut to cells. The original rounds here, half a cell to one and a half off.
        fractions = corners / corners.new_tensor(self.canvas.cells * 2)
        tokens_of_boxes = (fractions * fractions.new_tensor(self.canvas.scale.tolist() * 2)).long()
        tokens = self.generator.generate(
            bev,
            [best.shape[1]] * len(best),
            labels.flatten(),
            tokens_of_boxes.flatten(0, 1),
            max_vertices=self.max_vertices,
            top_p=self.top_p,
        )
        return best, labels, tokens.unflatten(0, labels.shape)

    def loss(
        self, bev: Tensor, features: Any, samples: Sequence[DrivingSample]
    ) -> dict[str, Tensor]:
        """Return the losses of detector and generator, which learn beside each other.

        Args:
            bev: (B, C, H, W).
            features: of the images; not read.
            samples: B of them, with ``gt_polylines``.

        Raises:
            ValueError: a sample has no truth, a class that the head has not, or a polyline of more
                vertices than the generator has positions.
        """
        targets = [self._targets(sample) for sample in samples]
        labels = [bev.new_tensor([t.label for t in own], dtype=torch.long) for own in targets]
        boxes = [
            torch.from_numpy(np.array([t.box for t in own]).reshape(-1, 4)).to(bev.device)
            for own in targets
        ]
        # Both parts get the truth: the generator learns of true boxes, not of those that are found
        # (section 3.5, teacher forcing).
        losses = self.loss_elements(*self.detector(bev), labels, [box.float() for box in boxes])
        together = [target for own in targets for target in own]
        if not together:
            # All ranks have to have the gradients of all weights: DistributedDataParallel waits.
            losses["loss_polyline"] = sum(p.sum() for p in self.generator.parameters()) * 0
            return losses
        tokens, weights = _pad(together)  # (P, L)
        tokens, weights = tokens.to(bev.device), weights.to(bev)
        corners = torch.from_numpy(np.stack([t.box_tokens for t in together])).to(bev.device)
        logits = self.generator(
            bev,
            [len(own) for own in targets],
            torch.cat(labels),
            self.disturb(corners, 0),
            # What stands behind an end is never looked at, but has to stay an end.
            torch.where(tokens == END, END, self.disturb(tokens, 1)),
        )
        losses["loss_polyline"] = generator_loss(logits, tokens, weights)
        return losses

    def predict(
        self, bev: Tensor, features: Any, samples: Sequence[DrivingSample]
    ) -> list[DrivingSample]:
        """Set ``pred_polylines`` of each sample.

        Its ``polylines`` are P float64 arrays (vertices, 2) in metres, beside ``labels`` (P,) and
        ``scores`` (P,), the best first. What has fewer than two vertices is no line and is left
        out.

        Args:
            bev: (B, C, H, W).
            features: of the images; not read.
            samples: B of them.
        """
        for sample, scores, labels, tokens in zip(
            samples, *(rows.detach().cpu().numpy() for rows in self(bev)), strict=True
        ):
            lines = [self._polyline(row) for row in tokens]  # M, some without any vertex
            kept = [i for i, line in enumerate(lines) if len(line) >= 2]
            elements = {
                "polylines": [lines[i] for i in kept],
                "labels": labels[kept],
                "scores": scores[kept].astype(np.float64),
            }
            sample.set_field(elements, "pred_polylines")
        return list(samples)

    def select(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pairs of a query and a class that are scored best.

        Args:
            scores: logits (B, E, classes).
            boxes: (B, E, 4).

        Returns:
            Scores (B, M) of 0-1, classes (B, M), and boxes (B, M, 4).
        """
        flat = scores.float().sigmoid().flatten(1)  # (B, E classes)
        # Over queries and classes together, so one box may give lines of several classes.
        best, index = flat.topk(min(self.max_elements, flat.shape[1]), dim=1)
        rows = (index // self.num_classes)[..., None].expand(-1, -1, 4)  # (B, M, 4)
        return best, index % self.num_classes, boxes.gather(1, rows).float()

    def disturb(self, numbers: Tensor, lowest: int) -> Tensor:
        """Return numbers (P, L) int64 of x and y in turn, some of them moved by noise.

        Each is drawn by itself and stays within the cells of its axis. (The original moves the y of
        a box as its x.)

        Args:
            numbers: in cells.
            lowest: the first cell's number.
        """
        axis = torch.arange(numbers.shape[1], device=numbers.device) % 2  # 0 is x, 1 is y
        # As many draws as numbers, chosen or not: the noise of one does not move the next one's.
        noise = torch.randn(numbers.shape, device=numbers.device) * self.noise_std[axis]
        moved = numbers + noise.round().long()
        highest = torch.tensor(self.canvas.cells, device=numbers.device)[axis] - 1 + lowest
        moved = torch.minimum(moved.clamp(min=lowest), highest)
        chosen = torch.rand(numbers.shape, device=numbers.device) < self.noise_probability
        return torch.where(chosen, moved, numbers)

    def _targets(self, sample: DrivingSample) -> list[ElementTarget]:
        if "gt_polylines" not in sample:
            raise ValueError(
                f"VectorMapHead: expected gt_polylines of frame {sample.token}, got none"
            )
        elements = sample.get("gt_polylines")
        labels = np.asarray(elements["labels"], int)
        if len(labels) and not (0 <= labels.min() and labels.max() < self.num_classes):
            raise ValueError(
                f"VectorMapHead: expected labels 0 to {self.num_classes - 1} in frame "
                f"{sample.token}, got {labels.tolist()}"
            )
        targets = encode_elements(
            elements["polylines"], labels, self.canvas, labels_by_length=self.labels_by_length
        )
        # Here as well as in the generator, which knows no frames.
        longest = max([len(target.tokens) // 2 for target in targets], default=0)
        if longest > self.generator.max_positions:
            raise ValueError(
                "VectorMapHead: expected polylines of at most the generator's max_positions = "
                f"{self.generator.max_positions} vertices, got {longest} in frame {sample.token}"
            )
        return targets

    def _polyline(self, tokens: np.ndarray) -> np.ndarray:
        """Return the vertices (K, 2) in metres of tokens (L,), within the range as the truth."""
        # argmax finds the first True.
        length = int(np.argmax(tokens == END)) if (tokens == END).any() else len(tokens)
        # An end takes the place of an x, so that what is before it comes in pairs.
        vertices = self.canvas.to_metres(tokens[: length // 2 * 2].reshape(-1, 2))
        return vertices.clip(self.canvas.range[:2], self.canvas.range[2:])


def _pad(targets: Sequence[ElementTarget]) -> tuple[Tensor, Tensor]:
    """Return tokens (P, L) int64 and weights (P, L) of sequences, 0 behind their ends."""
    length = max(len(target.tokens) for target in targets)
    tokens = torch.full((len(targets), length), END, dtype=torch.long)
    weights = torch.zeros(len(targets), length, dtype=torch.float64)
    for row, target in enumerate(targets):
        tokens[row, : len(target.tokens)] = torch.from_numpy(target.tokens)
        weights[row, : len(target.tokens)] = torch.from_numpy(target.weights)
    return tokens, weights
