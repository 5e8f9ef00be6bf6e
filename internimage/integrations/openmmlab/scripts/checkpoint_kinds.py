"""What the names in a checkpoint say about the model that it is of."""

from __future__ import annotations

from collections.abc import Iterable

DETECTOR = "a detector"
SEGMENTOR = "a segmentor"

# What a key begins with and the model that has it; the first that is found counts.
_MARKS = (
    ("decode_head.psp_modules.", f"{SEGMENTOR} with UPerHead"),
    ("decode_head.transformer_decoder.", f"{SEGMENTOR} with Mask2FormerHead"),
    ("decode_head.fusion_conv.", f"{SEGMENTOR} with SegformerHead"),
    ("decode_head.", f"{SEGMENTOR} with another head"),
    ("rpn_head.", DETECTOR),
    ("roi_head.", DETECTOR),
    ("bbox_head.", DETECTOR),
)


def kind_of(keys: Iterable[str]) -> str | None:
    """Return the kind of model that weights of these names are of, in words; None if unknown."""
    keys = tuple(keys)
    for mark, kind in _MARKS:
        if any(key.startswith(mark) for key in keys):
            return kind
    return None
