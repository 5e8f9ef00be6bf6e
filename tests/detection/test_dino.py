"""DINO as released: its own weights load whoever loads them, and its options act."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import load_checkpoint, load_state_dict
from torch import nn

from internimage.integrations.openmmlab import convert_state_dict
from internimage.integrations.openmmlab.detection.dino import RecomputedFFN
from tests.detection.released_configs import to_current
from tests.detection.released_records import read_record
from tests.detection.small_dino import build, losses_and_gradients, small_config
from tests.released_records import released_weights


@pytest.fixture(scope="module")
def released(weight):
    """A small released DINO's weights under their old names, and the config of their model."""
    record, _ = read_record("dino_g")
    return released_weights(record, weight), ConfigDict(to_current(record["model"]))


def holds(model, weights):
    """Whether a model has exactly these weights, once they are converted."""
    converted = convert_state_dict(weights)
    found = model.state_dict()
    return found.keys() == converted.keys() and all(
        torch.equal(found[key], value) for key, value in converted.items()
    )


def test_released_weights_load_strictly_under_their_old_names(released):
    weights, config = released
    before = dict(weights)
    model = MODELS.build(config)
    model.load_state_dict(weights, strict=True)
    assert holds(model, weights)
    assert weights == before  # the caller's dictionary is the caller's


def test_mmengine_loads_a_released_checkpoint_strictly(released, tmp_path):
    weights, config = released
    torch.save({"state_dict": weights}, tmp_path / "dino.pth")
    model = MODELS.build(config)
    load_checkpoint(model, str(tmp_path / "dino.pth"), map_location="cpu", strict=True)
    assert holds(model, weights)


def test_released_weights_load_into_a_detector_that_is_a_part_of_something(released):
    weights, config = released
    model = MODELS.build(config)
    whole = nn.ModuleDict({"detector": model, "other": nn.Linear(1, 1)})
    own = {f"detector.{key}": value for key, value in weights.items()}
    load_state_dict(whole, own | whole["other"].state_dict(prefix="other."), strict=True)
    assert holds(model, weights)
    averaged = ExponentialMovingAverage(MODELS.build(config))
    averaged.module.load_state_dict(weights)
    assert holds(averaged.module, weights)


def test_released_weights_that_lack_something_are_not_loaded_strictly(released):
    weights, config = released
    weights = dict(weights)
    del weights["bbox_head.transformer.level_embeds"]
    with pytest.raises(RuntimeError, match="level_embed"):
        MODELS.build(config).load_state_dict(weights, strict=True)


def test_a_copy_of_a_model_converts_too(released):
    weights, config = released
    model = copy.deepcopy(MODELS.build(config))
    model.load_state_dict(weights, strict=True)
    assert holds(model, weights)


def test_weights_of_today_load_as_they_are():
    model, other = build(small_config()), build(small_config())
    nn.init.normal_(model.level_embed)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other.level_embed, model.level_embed)


def test_one_config_builds_several_models_and_stays_as_it_was():
    config = small_config()
    before = copy.deepcopy(config)
    assert isinstance(MODELS.build(config), nn.Module)
    assert isinstance(MODELS.build(config), nn.Module)
    assert config["bbox_head"] == before["bbox_head"]
    assert config["dn_cfg"] == before["dn_cfg"]


def test_a_decoder_of_any_width_encodes_a_box_in_twice_its_width():
    assert build(small_config()).decoder.ref_point_head.layers[0].in_features == 64


def test_recomputing_feed_forward_layers_changes_no_gradient():
    plain, saving = build(small_config()), build(small_config(with_cp=True))
    saving.load_state_dict(plain.state_dict())
    assert sum(isinstance(module, RecomputedFFN) for module in saving.modules()) == 3
    losses, expected = losses_and_gradients(plain, 2, 3)
    again, found = losses_and_gradients(saving, 2, 3)
    for name, value in losses.items():
        torch.testing.assert_close(again[name], value)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_denoising_without_noise_starts_from_the_targets():
    generator = build(small_config()).dn_query_generator
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.8], [0.0, 0.0, 1.0, 1.0]])
    queries = generator.generate_dn_bbox_query(boxes, num_groups=2).sigmoid()
    expected = torch.tensor([[0.3, 0.5, 0.4, 0.6], [0.5, 0.5, 0.999, 0.999]])
    torch.testing.assert_close(queries, expected.repeat(4, 1))
    labels = generator.generate_dn_label_query(torch.tensor([2, 0]), num_groups=2)
    assert torch.equal(labels, generator.label_embedding.weight[[2, 0] * 4])


def test_denoising_with_noise_moves_boxes_within_its_scale():
    denoising = dict(box_noise_scale=0.4, group_cfg=dict(dynamic=True, num_dn_queries=10))
    generator = build(small_config(dn_cfg=denoising)).dn_query_generator
    torch.manual_seed(0)
    box = torch.tensor([[0.3, 0.3, 0.7, 0.7]])
    queries = generator.generate_dn_bbox_query(box, num_groups=50).sigmoid()
    moved = (queries - torch.tensor([0.5, 0.5, 0.4, 0.4])).abs()
    assert moved.max() > 0.02
    # corners of negatives move by up to the scale times the side
    assert moved.max() <= 2 * 0.4 * 0.4 + 1e-6


@pytest.mark.parametrize("numbers", [(0, 0), (0, 2)])
def test_images_without_objects_have_a_finite_loss_and_leave_no_parameter_out(numbers):
    losses, found = losses_and_gradients(build(small_config()), *numbers)
    assert all(torch.isfinite(value).all() for value in losses.values())
    # parameters out of the graph would stop training on several GPUs
    assert [name for name, gradient in found.items() if gradient is None] == []


def test_initialising_a_whole_detector_keeps_the_zero_offsets_of_dcnv3():
    model = build(small_config())
    offsets = [p for name, p in model.named_parameters() if ".dcn.offset." in name]
    assert len(offsets) == 10 and not any(p.any() for p in offsets)
    masks = [p for name, p in model.named_parameters() if ".dcn.mask." in name]
    assert len(masks) == 10 and not any(p.any() for p in masks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(as_two_stage=False), "expected as_two_stage = True, got False"),
        (dict(with_box_refine=False), "expected with_box_refine = True, got False"),
        (dict(dn_cfg=None), "expected dn_cfg = fields of denoising queries, got None"),
        (dict(dn_cfg=dict(box_noise_scale=-1.0)), "dn_cfg with box_noise_scale >= 0, got -1.0"),
    ],
)
def test_settings_that_dino_does_not_know_are_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(small_config(**changes))


def test_a_decoder_without_intermediate_outputs_warns_that_it_has_them():
    config = small_config()
    config["decoder"]["return_intermediate"] = False
    with pytest.warns(UserWarning, match="decoder.return_intermediate = False has no effect"):
        build(config)
