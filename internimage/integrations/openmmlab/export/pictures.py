"""Images to compare detectors on where there are none: coloured things before a soft background."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_THINGS = 12
"""Rectangles and ellipses of an image."""

SPREAD = 1.5
"""Standard deviation of the colours; that of normalised images is about 1."""


def pictures(
    count: int, size: tuple[int, int], image_size: tuple[int, int], *, seed: int
) -> dict[str, Tensor]:
    """Draw images, the same at every call.

    Args:
        count: N.
        size: (H, W) of the input, pixels.
        image_size: height and width of the part that holds the first image; the others are as
            large as the input. What is right of it and below is 0.
        seed: of the things' places and colours.

    Returns:
        ``input`` (N, 3, H, W), normalised, and ``image_size`` (N, 2), int64.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    coarse = torch.randn(count, 3, 4, 4, generator=generator)  # enlarged: a soft background
    images = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    y = torch.arange(height)[:, None] / height
    x = torch.arange(width)[None, :] / width
    for image in images:
        for thing in range(NUM_THINGS):
            centre_y, centre_x = torch.rand(2, generator=generator)
            # Sides from 4 to 40 % of the input: something for every level of a pyramid.
            half_y, half_x = 0.02 + 0.18 * torch.rand(2, generator=generator)
            colour = SPREAD * torch.randn(3, generator=generator)
            across, along = (x - centre_x) / half_x, (y - centre_y) / half_y
            is_round = thing % 2 == 0
            inside = (
                across**2 + along**2 < 1 if is_round else (across.abs() < 1) & (along.abs() < 1)
            )
            image[:, inside] = colour[:, None]
    images += 0.05 * torch.randn(images.shape, generator=generator)
    # One padded image beside whole ones: in a batch each is to be cut off at its own border.
    sizes = torch.tensor([list(size)] * count)
    sizes[0] = torch.tensor(image_size)
    images[0, :, image_size[0] :] = 0.0
    images[0, :, :, image_size[1] :] = 0.0
    return {"input": images, "image_size": sizes}
