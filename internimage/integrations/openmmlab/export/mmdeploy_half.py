"""A model for mmdeploy's exporter with its network in half precision.

mmdeploy's own conversion, of a finished file, turns box coordinates into float16 as well, whose
steps are half a pixel beyond 512 and a whole one beyond 1024. Here the backbone, the neck and a
segmentor's head are in float16, but for the sampling of DCNv3, and all that follows is in float32;
so are inputs and outputs.
"""

from __future__ import annotations

from torch import nn

from internimage.export.half import to_half

PARTS = ("backbone", "neck")  # a detector's heads are not: they calculate coordinates


def halve_network(model: nn.Module) -> None:
    """Put a model's network in half precision, in place.

    Args:
        model: a detector or segmentor in evaluation mode.
    """
    for name in PARTS:
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            setattr(model, name, to_half(part))
    head = getattr(model, "decode_head", None)
    if isinstance(head, nn.Module):
        # Its other methods, which resize scores, are called as well, and stay.
        in_half = to_half(head)
        head.forward = in_half.forward
        # As a part of the head, so that it moves to other devices with it.
        head.add_module("in_half", in_half)
