"""Models of the original's records in the fields of now."""

from __future__ import annotations

import copy
from typing import Any

from tests.detection.config_facts_models import DINO_TYPES, original_dino
from tests.released_records import without_sync_bn

NOT_BUILT = ("ffn", "fed_loss_without_effect", "snip_without_effect")
"""Facts of an original that say how it was made, and are no fields of a model."""


def to_current(model: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded model's config for ``mmdet.registry.MODELS.build``."""
    model = copy.deepcopy(model)
    if model["type"] not in DINO_TYPES:
        return without_sync_bn(model)
    backbone = model.pop("backbone")
    fields = {key: value for key, value in original_dino(model).items() if key not in NOT_BUILT}
    return fields | {"backbone": backbone}
