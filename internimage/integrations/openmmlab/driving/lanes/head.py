"""The head of OpenLane-V2: lanes, traffic elements, and which of them belong together.

Letters: B batch, C channels, H W cells of the BEV, L layers, Q lane queries, K element queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.losses import FocalLoss, L1Loss
from mmdet.models.task_modules.assigners import FocalLossCost
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from internimage.integrations.openmmlab.driving.assignment import assign
from internimage.integrations.openmmlab.driving.bezier import (
    NUM_CONTROL_POINTS,
    NUM_LANE_POINTS,
    bernstein,
)
from internimage.integrations.openmmlab.driving.data.openlane_layout import FRONT
from internimage.integrations.openmmlab.driving.lanes.decoder import LaneDecoder, LaneOutputs
from internimage.integrations.openmmlab.driving.lanes.elements import (
    ElementOutputs,
    TrafficElementDetector,
)
from internimage.integrations.openmmlab.driving.lanes.relations import RelationHead
from internimage.integrations.openmmlab.driving.sample import DrivingSample


@MODELS.register_module()
class OpenLaneHead(BaseModule):
    """Finds lanes in the bird's-eye view and traffic elements in the front image, and relates them.

    Args:
        range: x0, y0, z0, x1, y1, z1 of the BEV in ego metres; lanes lie within.
        embed_dims: C.
        lanes: arguments of ``LaneDecoder``.
        elements: arguments of ``TrafficElementDetector``.
        cls_weight: of the lanes' focal loss and of its cost in the matching.
        control_weight: of the L1 loss of the control points in metres, and of its cost.
        relation_weight: of the focal losses of the pairs.
        init_cfg: that of mmengine's ``BaseModule``.
    """

    def __init__(
        self,
        range: tuple[float, ...],
        *,
        embed_dims: int = 256,
        lanes: dict[str, Any] | None = None,
        elements: dict[str, Any] | None = None,
        # The three weights are those of OpenLane-V2's baseline; 0.0075 is for metres, of which a
        # lane sums 15 numbers.
        cls_weight: float = 1.5,
        control_weight: float = 0.0075,
        relation_weight: float = 5.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.covered_range = tuple(float(value) for value in range)
        self.lanes = LaneDecoder(range, embed_dims=embed_dims, **(lanes or {}))
        self.elements = TrafficElementDetector(embed_dims=embed_dims, **(elements or {}))
        self.lane_to_lane = RelationHead(embed_dims)
        self.lane_to_element = RelationHead(embed_dims)
        self.control_weight = control_weight
        # Gamma 2 and alpha 0.25, mmdet's defaults, are the baseline's too.
        self.lane_cost = FocalLossCost(weight=cls_weight)
        self.lane_loss = FocalLoss(loss_weight=cls_weight)
        self.control_loss = L1Loss(loss_weight=control_weight)
        self.relation_loss = FocalLoss(loss_weight=relation_weight)

    def loss(
        self, bev: Tensor, features: Sequence[Tensor], samples: Sequence[DrivingSample]
    ) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            bev: (B, C, H, W).
            features: of each level (B, N, C, h, w), the front camera first.
            samples: B samples with ``gt_lanes``.
        """
        lanes, elements, lane_pairs, element_pairs = self(bev, features, samples)
        losses, lane_matches = self._lane_losses(lanes, samples)
        element_losses, element_matches = self.elements.losses(elements, samples)
        losses.update({f"element.{name}": loss for name, loss in element_losses.items()})
        between_lanes, between_both = [], []
        for sample, lane, element in zip(samples, lane_matches, element_matches, strict=True):
            truth = sample.gt_lanes
            between_lanes.append(_pair_targets(truth["topology_lclc"], lane, lane))
            between_both.append(_pair_targets(truth["topology_lcte"], lane, element))
        # Frames without an element say nothing of elements; see the detector's losses.
        kept = [bool(len(sample.gt_lanes["boxes"])) for sample in samples]
        losses["relation.loss_lanes"] = self._pair_loss(lane_pairs, torch.stack(between_lanes))
        # Times 0 else, for the gradient of several processes.
        if any(kept):
            losses["relation.loss_elements"] = self._pair_loss(
                element_pairs[kept], torch.stack(between_both)[kept]
            )
        else:
            losses["relation.loss_elements"] = element_pairs.sum() * 0
        return losses

    @torch.no_grad()
    def predict(
        self, bev: Tensor, features: Sequence[Tensor], samples: Sequence[DrivingSample]
    ) -> list[DrivingSample]:
        """Add ``pred_lanes`` to the samples, all lanes and elements by falling score.

        It holds ``lanes`` (Q arrays (11, 3) in ego metres), ``scores`` (Q,), ``control_points``
        (Q, 15), ``boxes`` (K, 4), ``attributes`` (K,), ``box_scores`` (K,), ``topology_lclc``
        (Q, Q) and ``topology_lcte`` (Q, K), the matrices 0-1; boxes are corners in pixels of the
        front image as it lies on the disk.

        Args:
            bev: (B, C, H, W).
            features: of each level (B, N, C, h, w), the front camera first.
            samples: B samples.
        """
        lanes, elements, lane_pairs, element_pairs = self(bev, features, samples)
        curve = bernstein(NUM_LANE_POINTS)
        for index, sample in enumerate(samples):
            scores = lanes.logits[-1, index, :, 0].float().sigmoid().cpu().numpy()
            control = lanes.control_points[-1, index].float().cpu().numpy()
            found = self.elements.elements(elements, index, sample)
            # Stable, so that equal scores come in one order on every machine.
            rows = np.argsort(-scores, kind="stable")
            columns = np.argsort(-found["box_scores"], kind="stable")
            between_lanes = lane_pairs[index].float().sigmoid().cpu().numpy()
            between_both = element_pairs[index].float().sigmoid().cpu().numpy()
            # (11, 5) @ (Q, 5, 3) is (Q, 11, 3)
            points = curve @ control[rows].reshape(-1, NUM_CONTROL_POINTS, 3)
            sample.pred_lanes = {
                "lanes": list(points.astype(np.float32)),
                "scores": scores[rows],
                "control_points": control[rows],
                **{name: values[columns] for name, values in found.items()},
                # The matrices follow the order of the lanes, which the original forgot.
                "topology_lclc": between_lanes[np.ix_(rows, rows)],
                "topology_lcte": between_both[np.ix_(rows, columns)],
            }
        return list(samples)

    def forward(
        self,
        bev: Tensor,
        features: Sequence[Tensor],
        samples: Sequence[DrivingSample] | None = None,
    ) -> tuple[LaneOutputs, ElementOutputs, Tensor, Tensor]:
        """Return lanes, elements, and the logits (B, Q, Q) and (B, Q, K) of their relations.

        Args:
            bev: (B, C, H, W).
            features: of each level (B, N, C, h, w), the front camera first.
            samples: B samples; None for images without padding.
        """
        lanes = self.lanes(bev)
        elements = self.elements([level[:, FRONT] for level in features], samples)
        states = lanes.states[-1]
        return (
            lanes,
            elements,
            self.lane_to_lane(states, states),
            self.lane_to_element(states, elements.states),
        )

    def _lane_losses(
        self, outputs: LaneOutputs, samples: Sequence[DrivingSample]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the losses of all layers, and B times (Q,) the lanes of the last one, -1: none."""
        device = outputs.logits.device
        truths = [torch.as_tensor(s.gt_lanes["control_points"]).to(device) for s in samples]
        # By the lanes of all processes, so that a frame with few of them does not weigh more.
        num_lanes = outputs.logits.new_tensor(float(sum(map(len, truths))))
        # The mean over processes, because DDP takes the mean of their gradients.
        normaliser = max(float(reduce_mean(num_lanes)), 1.0)
        losses = {}
        matches: list[Tensor] = []
        for layer, (logits, control) in enumerate(
            zip(outputs.logits, outputs.control_points, strict=True)
        ):
            matches = [
                self._match_lanes(*answer) for answer in zip(logits, control, truths, strict=True)
            ]
            match = torch.cat(matches)
            # Query by query, sample by sample, as the mask `match >= 0` picks them below.
            targets = torch.cat(
                [truth[m[m >= 0]] for truth, m in zip(truths, matches, strict=True)]
            )
            name = "lane" if layer == len(outputs.logits) - 1 else f"lane.d{layer}"
            # To the loss, the number of classes (here 1) means none of them.
            losses[f"{name}.loss_cls"] = self.lane_loss(
                logits.flatten(0, 1), (match < 0).long(), avg_factor=normaliser
            )
            losses[f"{name}.loss_control"] = self.control_loss(
                control.flatten(0, 1)[match >= 0], targets, avg_factor=normaliser
            )
        return losses, matches

    @torch.no_grad()
    def _match_lanes(self, logits: Tensor, control: Tensor, truth: Tensor) -> Tensor:
        """Return the lane (Q,) of each query, -1 for none: the cheapest one-to-one choice.

        Lanes are directed, so a lane that is driven the other way is not near.
        """
        match = torch.full((len(logits),), -1, device=logits.device)
        labels = torch.zeros(len(truth), dtype=torch.long, device=logits.device)
        # mmdet's cost takes logits, under the name of scores.
        cost = self.lane_cost(InstanceData(scores=logits.float()), InstanceData(labels=labels))
        cost = cost + self.control_weight * torch.cdist(control.float(), truth, p=1)
        queries, lanes = assign(cost)
        match[queries] = lanes
        return match

    def _pair_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        # Class 0 is "related", and 1, as many as there are classes, is none; a mean over all pairs.
        return self.relation_loss(logits.reshape(-1, 1), (~targets).long().flatten())


def _pair_targets(truth: np.ndarray, rows: Tensor, columns: Tensor) -> Tensor:
    """Return for all pairs of queries (Q, K) whether what they match is related; no match, no."""
    related = torch.zeros(len(rows), len(columns), dtype=torch.bool, device=rows.device)
    row_hits, column_hits = (rows >= 0).nonzero()[:, 0], (columns >= 0).nonzero()[:, 0]
    truth_matrix = torch.as_tensor(truth, device=rows.device) > 0
    chosen = truth_matrix[rows[row_hits]][:, columns[column_hits]]
    related[row_hits[:, None], column_hits] = chosen  # all others are no relation, and learnt so
    return related
