"""One frame on one page: its cameras, the truth and the prediction from above, the legend."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from internimage.integrations.openmmlab.driving.pictures.cameras import draw_cameras
from internimage.integrations.openmmlab.driving.pictures.canvas import (
    MARGIN,
    blank,
    heading,
    legend,
    stack,
    title,
)
from internimage.integrations.openmmlab.driving.pictures.content import Range, draw_sample
from internimage.integrations.openmmlab.driving.pictures.maps import draw_map
from internimage.integrations.openmmlab.driving.sample import DrivingSample

WIDTH = 1280
"""Of a page without its margins, pixels."""


def draw_board(
    inputs: Tensor, sample: DrivingSample, extent: Range, *, score_threshold: float = 0.3
) -> np.ndarray:
    """Draw a frame.

    The cameras show what the model says, or the truth where it has not been asked.

    Args:
        inputs: (T, N, 3, H, W) or (N, 3, H, W), BGR, 0-255: the images as a data set gives them.
        sample: of the last frame.
        extent: of the model's space, x0, y0, z0, x1, y1, z1 in metres.
        score_threshold: what scores less is left out, 0-1.

    Returns:
        (h, w, 3), uint8, red-green-blue.

    Raises:
        ValueError: the sample has nothing to draw.
    """
    content = draw_sample(sample, extent, score_threshold=score_threshold)
    # The maps are of the last frame of a queue; those before it only taught the model.
    last = inputs[-1] if inputs.dim() == 5 else inputs
    # (N, 3, H, W) to (N, H, W, 3), BGR to RGB; distorted images leave 0-255.
    images = last.permute(0, 2, 3, 1).flip(-1).clamp(0, 255).byte().cpu().numpy()
    sides = [
        (name, drawing)
        for name, drawing in (("Truth", content.truth), ("Prediction", content.prediction))
        if drawing is not None
    ]
    region = (extent[0], extent[1], extent[3], extent[4])  # a map has no heights
    # As wide as one of two even if it is alone: pages of truth and of predictions compare.
    width = (WIDTH - MARGIN) // 2
    maps = [draw_map(drawing, region, name, width=width) for name, drawing in sides]
    row = blank(len(maps[0]), WIDTH)
    first = (WIDTH - len(maps) * (width + MARGIN) + MARGIN) // 2  # one alone is in the middle
    for index, one in enumerate(maps):
        left = first + index * (width + MARGIN)
        row[:, left : left + width] = one
    # One of the two: drawn over each other in the cameras, neither could be made out.
    shown = sides[-1]
    views = draw_cameras(
        np.ascontiguousarray(images),
        sample.cameras,
        np.asarray(sample.ego2img)[-1],
        np.asarray(sample.scale_factors),
        shown[1],
        width=WIDTH,
    )
    return stack(
        [
            title(WIDTH, content.task, f"scene {sample.scene}, frame {sample.token}"),
            # One picture of both, so that `stack` puts no margin between them.
            np.concatenate(
                [heading(WIDTH, f"Cameras, with the {shown[0].lower()} drawn in", ""), views]
            ),
            row,
            legend(WIDTH, content.keys),
        ]
    )
