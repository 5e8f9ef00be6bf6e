"""DINO from images to detections, in tensors of a fixed shape.

The modules with weights are the detector's own. Where mmdet reads sizes of images and of maps out
of tensors and lists, which a traced model would keep for ever, they are inputs and shapes here.

Shape legend: N images, H W input size in pixels, L feature levels, T sum of the levels' pixels, Q
queries, D width, C classes, K detections of an image.
"""

from __future__ import annotations

import copy

import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from internimage.export.half import to_half
from internimage.integrations.openmmlab.detection import CBDINO, InternImageDINO
from internimage.integrations.openmmlab.detection.dino import INVERSE_SIGMOID_EPS
from internimage.integrations.openmmlab.detection.dino_head import InternImageDINOHead
from internimage.integrations.openmmlab.export.boxes import (
    MOST_CANDIDATES,
    borders,
    look_up,
    pick,
)
from internimage.integrations.openmmlab.export.deformable_attention import (
    Sizes,
    as_tensor,
    pixel_centres,
    replace_attention,
)
from internimage.integrations.openmmlab.export.pyramid import Pyramid

# Both numbers are those of mmdet's gen_encoder_output_proposals, where they have no names.
EDGE = 0.01
"""The encoder proposes nothing whose centre or side is nearer to 0 or 1 than this."""

FINEST_SIDE = 0.05
"""Side of the boxes that the encoder proposes on the finest level, over the image's."""


class ExportableDINO(nn.Module):
    """A DINO whose results are those of ``model.predict``.

    Args:
        model: a detector of ours, in evaluation mode; it stays as it is.
        blue_first: whether the model sees blue, green, red; images come as red, green, blue.

    Raises:
        ValueError: the head is another one, or more is asked for than there are answers.
    """

    def __init__(self, model: InternImageDINO, *, blue_first: bool = False) -> None:
        super().__init__()
        # No isinstance: a class of its own may compute something else, as may a head.
        if type(model) not in (InternImageDINO, CBDINO):
            raise ValueError(
                "export_detector: expected a DINO of type InternImageDINO or CBDINO, got "
                f"{type(model).__name__}"
            )
        head = model.bbox_head
        if type(head) is not InternImageDINOHead or not head.loss_cls.use_sigmoid:
            raise ValueError(
                "export_detector: expected a bbox_head of type InternImageDINOHead with a sigmoid, "
                f"got {type(head).__name__}"
            )
        # The default is that of mmdet's DETRHead.
        self.num_detections = int(model.test_cfg.get("max_per_img", model.num_queries))
        most = min(model.num_queries * head.num_classes, MOST_CANDIDATES)
        if not 1 <= self.num_detections <= most:
            raise ValueError(
                f"export_detector: expected test_cfg.max_per_img from 1 to {most}, got "
                f"{self.num_detections}"
            )
        model = copy.deepcopy(model)  # what is exported is compared with the model as it was
        replace_attention(model)
        self.pyramid: nn.Module = Pyramid(model, blue_first=blue_first)
        self.positions = model.positional_encoding
        self.level_embed = model.level_embed
        self.encoder_layers = model.encoder.layers
        self.memory_trans_fc = model.memory_trans_fc
        self.memory_trans_norm = model.memory_trans_norm
        self.query_embedding = model.query_embedding
        self.decoder = model.decoder
        self.cls_branches = model.bbox_head.cls_branches
        self.reg_branches = model.bbox_head.reg_branches
        self.num_queries = model.num_queries
        self._out_indices = model.backbone.out_indices
        self._num_classes = head.num_classes

    def forward(self, images: Tensor, image_size: Tensor) -> tuple[Tensor, Tensor]:
        """Detect.

        Args:
            images: normalised and padded, (N, 3, H, W).
            image_size: height and width of the part of each that holds its image, (N, 2), pixels.

        Returns:
            Left, top, right, bottom and score (N, K, 5), and classes (N, K).
        """
        _, _, height, width = images.shape
        maps = self.pyramid(images)
        sizes = [(each.shape[2], each.shape[3]) for each in maps]
        masks = [padding_mask((height, width), size, image_size) for size in sizes]
        # mmdet leaves the masks out where no image is padded. That would be a branch, of which a
        # trace keeps one; masks of nothing give the same.
        is_padding = torch.cat([mask.flatten(1) for mask in masks], dim=1)  # (N, T)
        ratios = torch.stack([valid_ratio(mask) for mask in masks], dim=1)  # (N, L, 2)
        memory = self._encode(maps, masks, is_padding, ratios, sizes)
        boxes = self._propose(memory, masks, is_padding)
        states, references = self.decoder(
            query=self.query_embedding.weight[None].expand(images.shape[0], -1, -1),
            value=memory,
            key_padding_mask=is_padding,
            self_attn_mask=None,  # there are no denoising queries to be hidden
            reference_points=boxes,
            spatial_shapes=sizes,
            level_start_index=None,  # for mmcv's CUDA kernel alone
            valid_ratios=ratios,
            reg_branches=self.reg_branches,
        )
        # Only the last layer answers, from the boxes that went into it.
        last = len(states) - 1
        logits = self.cls_branches[last](states[last])
        start = inverse_sigmoid(references[last], eps=INVERSE_SIGMOID_EPS)
        boxes = (self.reg_branches[last](states[last]) + start).sigmoid()
        return self._detections(logits, boxes, image_size)

    def num_candidates(self, size: tuple[int, int]) -> int:
        """Return how many places of an input (H, W) the encoder proposes boxes from, at most."""
        finest = 2 + min(self._out_indices)  # stage 0 halves a side twice, each later one once
        sides = [
            [-(-side // 2 ** (finest + level)) for side in size]
            for level in range(len(self.level_embed))
        ]
        return sum(height * width for height, width in sides)

    def halve(self) -> None:
        """Calculate the maps in float16; the transformer, which calculates coordinates, stays."""
        self.pyramid = to_half(self.pyramid)

    def _encode(
        self,
        maps: tuple[Tensor, ...],
        masks: list[Tensor],
        is_padding: Tensor,
        ratios: Tensor,
        sizes: Sizes,
    ) -> Tensor:
        """Return the encoder's output (N, T, D)."""
        points, positions = [], []
        for level, (height, width) in enumerate(sizes):
            y, x = pixel_centres(height, width)
            share = ratios[:, None, level]  # (N, 1, 2)
            # 0-1 of the image itself, without the padding. (N, height width, 2)
            points.append(
                torch.stack([x / (share[:, :, 0] * width), y / (share[:, :, 1] * height)], dim=-1)
            )
            encoded = self.positions(masks[level]).flatten(2).transpose(1, 2)
            positions.append(encoded + self.level_embed[level])
        # (N, D, height, width) -> (N, height width, D), the levels behind one another
        query = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
        query_pos = torch.cat(positions, dim=1)
        # Of the padded map of every level, where attention samples. (N, T, L, 2)
        reference_points = torch.cat(points, dim=1)[:, :, None] * ratios[:, None]
        for layer in self.encoder_layers:
            query = layer(
                query=query,
                query_pos=query_pos,
                key_padding_mask=is_padding,
                spatial_shapes=sizes,
                level_start_index=None,
                valid_ratios=ratios,
                reference_points=reference_points,
            )
        return query

    def _propose(self, memory: Tensor, masks: list[Tensor], is_padding: Tensor) -> Tensor:
        """Return the best boxes that the encoder proposes, (N, Q, 4), centre and size, 0-1."""
        start = torch.cat([_start_boxes(mask, level) for level, mask in enumerate(masks)], dim=1)
        is_inside = ((start > EDGE) & (start < 1 - EDGE)).all(dim=2) & ~is_padding
        # Logits, infinite where nothing is to be proposed. As in mmdet such places stay in the
        # choice: with a memory of 0 they all score alike, and may be among the best.
        start = torch.log(start / (1 - start)).masked_fill(~is_inside[..., None], float("inf"))
        memory = memory.masked_fill(~is_inside[..., None], 0.0)
        memory = self.memory_trans_norm(self.memory_trans_fc(memory))
        encoder = len(self.decoder.layers)  # its branches stand behind those of the layers
        scores = self.cls_branches[encoder](memory).amax(dim=2)  # (N, T), of the best class
        _, indices = scores.topk(self.num_queries, dim=1)
        # Of the chosen alone: mmdet computes all boxes, and picks then.
        logits = self.reg_branches[encoder](pick(memory, indices)) + pick(start, indices)
        return logits.sigmoid()

    def _detections(
        self, logits: Tensor, boxes: Tensor, image_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the best pairs of a query and a class: (N, K, 5) and classes (N, K)."""
        scores, indices = logits.sigmoid().flatten(1).topk(self.num_detections, dim=1)
        # Tables in the place of indices // C and indices % C, see look_up.
        numbers = torch.arange(self.num_queries, device=boxes.device)
        queries = numbers[:, None].expand(-1, self._num_classes).flatten()  # (Q C,)
        classes = torch.arange(self._num_classes, device=boxes.device).repeat(self.num_queries)
        limits = borders(image_size)[:, None]
        corners = bbox_cxcywh_to_xyxy(pick(boxes, look_up(queries, indices))) * limits
        corners = torch.minimum(corners.clamp(min=0), limits)
        return torch.cat([corners, scores[..., None]], dim=2), look_up(classes, indices)


def padding_mask(
    input_size: tuple[int, int], map_size: tuple[int, int], image_size: Tensor
) -> Tensor:
    """Return which pixels of a level hold no image, (N, height, width).

    Args:
        input_size: (H, W), pixels.
        map_size: of the level.
        image_size: (N, 2).
    """
    outside = []
    for axis, (full, size) in enumerate(zip(input_size, map_size, strict=True)):
        # The nearest pixel of the input, as mmdet's interpolation takes it.
        pixels = torch.div(torch.arange(size) * full, size, rounding_mode="trunc")
        outside.append(pixels.to(image_size)[None] >= image_size[:, axis : axis + 1])
    return outside[0][:, :, None] | outside[1][:, None, :]  # (N, height, 1) | (N, 1, width)


def valid_ratio(mask: Tensor) -> Tensor:
    """Return the share of a level's width and height that holds the image, (N, 2), 0-1."""
    _, height, width = mask.shape
    return valid_size(mask) / torch.stack([as_tensor(width), as_tensor(height)])


def valid_size(mask: Tensor) -> Tensor:
    """Return how much of a level's width and height holds the image, (N, 2), pixels, float32."""
    # Images stand in the upper left corner: the first column and the first row tell.
    rows, columns = (~mask[:, :, 0]).float(), (~mask[:, 0, :]).float()
    return torch.stack([columns.sum(dim=1), rows.sum(dim=1)], dim=1)


def _start_boxes(mask: Tensor, level: int) -> Tensor:
    """Return a box on each pixel of a level, (N, height * width, 4), centre and size, 0-1."""
    y, x = pixel_centres(mask.shape[1], mask.shape[2])
    centres = torch.stack([x, y], dim=-1) / valid_size(mask)[:, None]
    # Width and height alike; a level has half the resolution of the one before it.
    return torch.cat([centres, torch.full_like(centres, FINEST_SIDE * 2.0**level)], dim=-1)
