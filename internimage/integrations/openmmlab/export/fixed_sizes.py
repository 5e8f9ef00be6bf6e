"""What a file of a fixed size makes of images that are of another ratio of sides."""

from __future__ import annotations

import warnings

from internimage.export import ExportOptions
from internimage.export.options import SIDES
from internimage.integrations.openmmlab.export.sources import Resizing
from internimage.runtime.inputs import round_up

# Warnings below are stacklevel 3: the line that called export_detector or export_segmentor.
REMEDY = "--dynamic height width gives PyTorch's answer for all"


def warn_of_squeezing(name: str, resizing: Resizing, size: tuple[int, int]) -> None:
    """Say that whole images are resized to the very size of the input, if that is not the config's.

    Args:
        name: of the file.
        resizing: of the config's test pipeline.
        size: (height, width) of the input, pixels.
    """
    made = f"{name} resizes every image to {size[0]}x{size[1]}"
    if resizing.scale is None:
        warnings.warn(
            f"{made}, where PyTorch leaves its size; {REMEDY}",
            stacklevel=3,
        )
    elif resizing.keep_ratio:
        warnings.warn(
            f"{made}, where PyTorch keeps the ratio of its sides, within "
            f"{max(resizing.scale)}x{min(resizing.scale)}: images of another ratio are squeezed; "
            f"{REMEDY}",
            stacklevel=3,
        )
    elif size != resizing.scale[::-1]:  # the config has (width, height)
        warnings.warn(
            f"{made}, where the config has {resizing.scale[1]}x{resizing.scale[0]}", stacklevel=3
        )


def warn_of_shrinking(
    name: str, resizing: Resizing, size: tuple[int, int], options: ExportOptions
) -> None:
    """Say which images are made smaller than the config says, so that they fit into the input.

    Args:
        name: of the file.
        resizing: of the config's test pipeline.
        size: (height, width) of the input, pixels.
        options: say which side is open.
    """
    # Loops are of known sizes: the usual advice would be an error.
    remedy = REMEDY if options.boxes == "operators" else "--boxes loops takes one size alone"
    if resizing.scale is None:
        if not set(SIDES) <= options.opened:
            warnings.warn(
                f"{name} takes images of up to {size[0]}x{size[1]} alone; {remedy}", stacklevel=3
            )
        return
    multiple = resizing.multiple_of or 1
    # As large as images can become: one whose ratio is the scale's. Others are smaller.
    long, short = (round_up(side, multiple) for side in sorted(resizing.scale)[::-1])
    limits = [
        None if axis in options.opened else side for axis, side in zip(SIDES, size, strict=True)
    ]
    shapes = {"wide images": (short, long), "portrait images": (long, short)}
    if not resizing.keep_ratio:
        shapes = {"images": (resizing.scale[1], resizing.scale[0])}
    shrunk = [
        kind
        for kind, sides in shapes.items()
        if any(most is not None and side > most for side, most in zip(sides, limits, strict=True))
    ]
    if shrunk:
        warnings.warn(
            f"{name} makes {' and '.join(shrunk)} smaller than PyTorch does, which fit into "
            f"{size[0]}x{size[1]} then; {remedy}",
            stacklevel=3,
        )
