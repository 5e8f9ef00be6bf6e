"""Bytes that spatial cross-attention holds for its gradients, with and without gathering."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from internimage.integrations.openmmlab.driving.attention import (
    ImageFeatures,
    SeenQueries,
    SpatialCrossAttention,
    gather_seen,
)
from internimage.integrations.openmmlab.driving.geometry import project
from tools.driving_scenes.rigs import city_rig, ring_rig


class AttentionBytes(NamedTuple):
    """What a layer's attention holds between forward and backward.

    Args:
        num_cells: of the view.
        num_rows: cells that a camera attends for, of the camera that sees the most.
        gathered: bytes where each camera attends for the cells that it sees.
        everything: bytes where each attends for all.
    """

    num_cells: int
    num_rows: int
    gathered: int
    everything: int


def matrices_of(num_cameras: int, shape: tuple[int, int]) -> Tensor:
    """Returns ``ego2img`` (1, N, 4, 4) of nuScenes' six cameras, or Argoverse 2's seven.

    Args:
        num_cameras: N, 6 or 7.
        shape: height and width that the images of all of them are resized to, pixels.
    """
    matrices = []
    for camera in city_rig() if num_cameras == 6 else ring_rig():
        to_image = np.eye(4)
        scales = [shape[1] / camera.size[0], shape[0] / camera.size[1], 1]
        to_image[:3, :3] = np.diag(scales) @ camera.intrinsic
        matrices.append(to_image @ np.linalg.inv(camera.mounting))
    return torch.from_numpy(np.stack(matrices))[None]


def attention_bytes(
    view: dict[str, Any], num_cameras: int, shape: tuple[int, int], *, first_stride: int
) -> AttentionBytes:
    """Counts without computing: all tensors but the cells that are seen are shapes alone.

    Args:
        view: config of a ``BEVFormerView``.
        num_cameras: N.
        shape: height and width of the images, a multiple of the coarsest stride, pixels.
        first_stride: of the finest feature map; each further one is half the size.
    """
    maps = [
        (math.ceil(shape[0] / stride), math.ceil(shape[1] / stride))
        for stride in (first_stride * 2**level for level in range(view["num_levels"]))
    ]
    real = MODELS.build(view)
    visible = project(real.pillar_points, matrices_of(num_cameras, shape), shape).visible
    seen = visible.any(dim=-1)
    # The other one, attentions[0], looks at the history.
    layer: SpatialCrossAttention = real.encoder.layers[0].attentions[1]
    chosen = gather_seen(seen)
    # As if each camera saw every cell: all rows, (B, N, cells).
    everything = SeenQueries(torch.arange(seen.shape[-1]).expand(seen.shape), seen)
    held = [_held(layer, queries, visible.shape[2:], maps) for queries in (chosen, everything)]
    return AttentionBytes(seen.shape[-1], chosen.cells.shape[-1], *held)


def _held(
    layer: SpatialCrossAttention,
    queries: SeenQueries,
    pillars: tuple[int, ...],
    maps: list[tuple[int, int]],
) -> int:
    """Returns the bytes of the tensors that autograd keeps, each storage once.

    Of the view ``pillars`` are the number of its cells and that of the points above each.
    """
    batch, cameras, rows = queries.cells.shape
    cells, depth = pillars
    channels = layer.output_proj.in_features
    pixels = sum(height * width for height, width in maps)
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(storage)  # else its place would be another one's
        kept[storage._cdata] = storage.nbytes()
        return tensor

    # Autocast, which the attention switches off, knows no meta device; fake tensors name the CPU.
    with FakeTensorMode(allow_non_fake_inputs=True):
        query = torch.empty(batch, cells, channels, requires_grad=True)
        values = torch.empty(batch, cameras, pixels, channels, requires_grad=True)
        reference = torch.empty(batch, cameras, cells, depth, 2)
        chosen = SeenQueries(
            torch.empty(batch, cameras, rows, dtype=torch.long),
            torch.empty(batch, cameras, rows, dtype=torch.bool),
        )
        # Called with each tensor that an operator saves for its backward.
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(query, ImageFeatures(values, maps), reference, chosen)
    return sum(kept.values())
