from __future__ import annotations

import pytest
import torch

import internimage
from internimage.complexity import count_complexity, count_parameters

# Size -> image side, GMACs of convolutions and linears, 1e9 operations of the sampling.
PUBLISHED = {
    "t": (224, 4.79, 0.10),
    "s": (224, 8.17, 0.13),
    "b": (224, 16.00, 0.19),
    "l": (384, 106.89, 0.90),
    "xl": (384, 161.80, 1.12),
    "h": (640, 1486, 6.5),
    "g": (512, 2705, 5.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("size", PUBLISHED)
def test_the_counts_are_those_of_the_published_table(size):
    side, gmacs, sampling = PUBLISHED[size]
    with torch.device("meta"):
        cost = count_complexity(internimage.create_model(size), side)
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=1e-3)
    assert cost.sampling / 1e9 == pytest.approx(sampling, rel=0.06)
    assert cost.total == cost.macs + cost.sampling


def test_one_block_is_counted_as_by_hand():
    model = internimage.InternImage(channels=16, depths=(1,), groups=(2,), num_classes=3)
    cost = count_complexity(model, (32, 64))
    n, c = 8 * 16, 16
    stem = 16 * 32 * 8 * 27 + n * c * 8 * 9
    dcn = n * (c * c * 2 + c * 9 + c * 2 * 9 * 3)
    mlp = n * c * 4 * c * 2
    head = n * c * 24 + 24 * 3
    assert cost.macs == stem + dcn + mlp + head
    assert cost.sampling == 5 * n * 9 * c
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_without_the_middle_point_there_are_8_to_sample():
    costs = [
        count_complexity(internimage.create_model("n", remove_center=removed), 32).sampling
        for removed in (False, True)
    ]
    assert costs[1] * 9 == costs[0] * 8


def test_counting_leaves_the_model_as_it_was(filled_model, image):
    model = internimage.create_model("internimage_test_s", frozen_stages=1).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training = [module.training for module in model.modules()]
    count_complexity(model, 32)
    assert [module.training for module in model.modules()] == training
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_trainable_parameters_can_be_counted_alone():
    model = internimage.create_model("internimage_test_t", frozen_stages=4)
    trainable = count_parameters(model, trainable_only=True)
    assert 0 < trainable < count_parameters(model)


@pytest.mark.slow
def test_the_metaformer_is_counted_with_its_time_and_place():
    with torch.device("meta"):
        model = internimage.create_model("internimage_h_22ktoinat18_384")
        cost = count_complexity(model, 384)
    assert cost.macs > 500e9
