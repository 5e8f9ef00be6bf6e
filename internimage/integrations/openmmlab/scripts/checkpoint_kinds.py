"""What the names in a checkpoint say about the model that it is of."""

from __future__ import annotations

from collections.abc import Iterable

DETECTOR = "a detector"
SEGMENTOR = "a segmentor"
DRIVING_MODEL = "a model of driving"

_VIEW = "view."

# What keys of models of driving begin with: ours, the original's of occupancy and lanes, of maps.
_OF_DRIVING = (_VIEW, "pts_bbox_head.", "backbone.img_backbone.")

# What a key begins with and the model that has it; the first that is found counts.
_MARKS = (
    (_VIEW, DRIVING_MODEL),
    ("decode_head.psp_modules.", f"{SEGMENTOR} with UPerHead"),
    ("decode_head.transformer_decoder.", f"{SEGMENTOR} with Mask2FormerHead"),
    ("decode_head.fusion_conv.", f"{SEGMENTOR} with SegformerHead"),
    ("decode_head.", f"{SEGMENTOR} with another head"),
    ("rpn_head.", DETECTOR),
    ("roi_head.", DETECTOR),
    ("bbox_head.", DETECTOR),
)


def is_of_driving(keys: Iterable[str]) -> bool:
    """Return whether weights of these names, ours or the original's, are of a model of driving."""
    return any(key.startswith(_OF_DRIVING) for key in keys)


def kind_of(keys: Iterable[str]) -> str | None:
    """Return the kind of model that weights of these names are of, in words; None if unknown."""
    keys = tuple(keys)
    for mark, kind in _MARKS:
        if any(key.startswith(mark) for key in keys):
            return kind
    return None
