"""Every config builds its model, with the released segmentors' weights by name and shape."""

from __future__ import annotations

import pytest
import torch

from internimage.integrations.openmmlab import convert_state_dict
from tests.released_records import read_json
from tests.segmentation.config_facts import build_without_storage

RECORDED = read_json("dense/keys")["segmentation"]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_weights_of_the_released_model_fit_all_of_them_and_nothing_else(name: str):
    released = {key: torch.empty(shape, device="meta") for key, shape in RECORDED[name].items()}
    converted = {key: tuple(v.shape) for key, v in convert_state_dict(released).items()}
    model = build_without_storage(name)
    assert {key: tuple(v.shape) for key, v in model.state_dict().items()} == converted
    # without a converter, as any of OpenMMLab's loaders does
    assert not any(model.load_state_dict(released, strict=True))
