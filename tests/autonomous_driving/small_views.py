"""A small view and what it is called with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.encoder import BEVFormerView
from internimage.integrations.openmmlab.driving.poses import ego_to_image, pose_of

GRID = {"range": (-8.0, -6.0, -1.0, 8.0, 6.0, 2.0), "shape": (6, 8)}
IMAGE_SHAPE = (32, 64)


def cameras(num: int, *, seed: int = 0) -> np.ndarray:
    """Return ego2img (N, 4, 4) of cameras around the ego, each turned a bit by itself."""
    rng = np.random.default_rng(seed)
    intrinsic = np.array([[30.0, 0, 32], [0, 30, 16], [0, 0, 1]])
    matrices = []
    for turn in np.arange(num) * 2 * np.pi / num + rng.uniform(-0.2, 0.2, num):
        c, s = np.cos(turn), np.sin(turn)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        axes = rotation @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        matrices.append(ego_to_image(intrinsic, pose_of(axes, [0, 0, 1.5])))
    return np.stack(matrices)


def small_view(**settings: Any) -> BEVFormerView:
    """Return a view in evaluation mode whose attentions look somewhere else for each query."""
    torch.manual_seed(0)
    view = BEVFormerView(
        GRID,
        embed_dims=16,
        **{
            "num_cameras": 3,
            "num_levels": 2,
            "num_layers": 2,
            "num_heads": 2,
            "num_pillar_points": 4,
            **settings,
        },
    ).eval()
    for name, parameter in view.named_parameters():
        if "sampling_offsets.weight" in name or "attention_weights.weight" in name:
            nn.init.normal_(parameter, std=0.3)
    return view


def small_features(batch: int, *, seed: int = 0) -> list[Tensor]:
    """Return two levels (B, 3, 16, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, 3, 16, height, width, generator=generator)
        for height, width in ((8, 16), (4, 8))
    ]


def drive(num_frames: int, *, seed: int = 0) -> np.ndarray:
    """Return poses (T, 4, 4) of an ego that drives and turns."""
    rng = np.random.default_rng(seed)
    poses = [pose_of(np.eye(3), [1000.0, 500.0, 0.0])]
    for _ in range(num_frames - 1):
        turn = rng.uniform(-0.3, 0.3)
        c, s = np.cos(turn), np.sin(turn)
        step = pose_of([[c, -s, 0], [s, c, 0], [0, 0, 1]], [rng.uniform(1, 3), 0, 0])
        poses.append(poses[-1] @ step)
    return np.stack(poses)
