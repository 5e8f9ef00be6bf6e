"""Layer-wise learning rates: the original's where they had an effect, repaired where not."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from internimage.integrations.openmmlab import (
    LayerDecayOptimWrapperConstructor,
    convert_state_dict,
)
from tests.config_facts import ROOT, build_on_meta, load_config
from tests.released_records import read_json

RECORDS = read_json("dense/layer_decay")
SINGLE_STREAM_H = "coco/dino_4scale_internimage_h_objects365_coco_ss"
POST_NORM_BLOCKS = {"h": (5, 11, 17, 23, 29), "g": (5, 11, 17, 23, 29, 35, 41, 47)}

POST_NORM = re.compile(r"levels\.2\.post_norms\.(\d)\.")
STREAM = re.compile(r"^backbone\.cb_modules\.[01]\.")


@pytest.fixture(autouse=True)
def few_log_lines():
    """The plain constructor of mmengine logs three lines for every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def rates_and_decays(model, optim_wrapper):
    """Rate over the base rate and weight decay of every parameter, as an optimizer gets them."""
    wrapper = build_optim_wrapper(model, optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    base = optim_wrapper["optimizer"]["lr"]
    return {
        names[id(parameter)]: (group["lr"] / base, group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


def current_rates_and_decays(task, name):
    """Those of our config of that name."""
    config = load_config(ROOT / task / "configs" / f"{name}.py")
    return rates_and_decays(build_on_meta(config), config.optim_wrapper)


def recorded(task, name):
    """The record's factor and weight decay of every parameter, under today's names."""
    found = {}
    for old, values in RECORDS[task][name]["params"].items():
        # Quarters of a feed-forward layer all have the same values as the whole.
        old = re.sub(r"(ffns\.0\.)fc1_0\.", r"\1layers.0.0.", old)
        old = old.replace("fc2_0.weight", "layers.1.weight").replace("fc2_bias", "layers.1.bias")
        if re.search(r"\.fc[12]_[1-3]\.", old):
            continue
        found[old] = values
    converted = convert_state_dict({key: torch.tensor(v) for key, v in found.items()})
    return {new: tuple(values) for new, values in zip(converted, found.values(), strict=True)}


def repaired(task, name, original):
    """What the record would say if all of the original's settings had an effect."""
    options = RECORDS[task][name]["optimizer"]["paramwise_cfg"]
    single = recorded("detection", SINGLE_STREAM_H) if "cbinternimage" in name else {}
    block_ids = POST_NORM_BLOCKS["g" if "internimage_g" in name else "h"]
    values = {}
    for key, (factor, decay) in original.items():
        source = single if STREAM.match(key) else original
        alone = STREAM.sub("backbone.", key)
        if post_norm := POST_NORM.search(key):
            alone = f"backbone.levels.2.blocks.{block_ids[int(post_norm[1])]}.mlp.fc1.weight"
        if key.startswith("backbone.") and alone in source:
            factor = source[alone][0]
        if ".dcn.offset." in key:
            factor *= options.get("offset_lr_scale", 1.0)
        values[key] = (factor, decay)
    return values


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, records in RECORDS.items() for name in records]
)
def test_rates_and_decays_of_every_parameter_are_the_original_ones(task, name):
    original = recorded(task, name)
    expected = repaired(task, name, original)
    found = current_rates_and_decays(task, name)
    assert found == {key: pytest.approx(values, rel=1e-9) for key, values in expected.items()}
    changed = {key for key in expected if expected[key] != original[key]}
    if "cbinternimage" in name:
        # all of both streams but the gammas and the last layer, the connections not
        assert {key for key in changed if not STREAM.match(key)} == set()
        assert len(changed) > 2600
    else:
        assert all(".dcn.offset." in key or POST_NORM.search(key) for key in changed)
        assert bool(changed) == ("internimage_h" in name or "internimage_g" in name)


class Detector(nn.Module):
    """A backbone and a head, as the constructor looks at them."""

    def __init__(self, **fields):
        super().__init__()
        self.backbone = MODELS.build(dict(type="InternImage", arch="test_t", **fields))
        self.head = nn.Linear(4, 2)


def wrapper_config(**options):
    return dict(
        optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
        constructor="CustomLayerDecayOptimizerConstructor",
        paramwise_cfg=dict(layer_decay_rate=0.5) | options,
    )


def test_depths_are_read_from_the_backbone():
    found = rates_and_decays(Detector(), wrapper_config())
    explicit = rates_and_decays(Detector(), wrapper_config(depths=[1, 1, 2, 1], num_layers=5))
    assert found == explicit
    assert found["backbone.patch_embed.conv1.weight"] == (0.5**6, 0.05)
    assert found["backbone.levels.2.blocks.1.mlp.fc1.weight"] == (0.5**2, 0.05)
    assert found["head.weight"] == (1.0, 0.05)
    assert found["head.bias"] == (1.0, 0.0)


def test_frozen_parameters_are_in_no_group():
    found = rates_and_decays(Detector(frozen_stages=2), wrapper_config())
    assert not [name for name in found if "levels.0." in name or "levels.1." in name]
    assert "backbone.levels.2.norm.0.weight" in found


def test_offsets_have_a_rate_of_their_own_and_masks_have_not():
    plain = rates_and_decays(Detector(), wrapper_config())
    scaled = rates_and_decays(Detector(), wrapper_config(offset_lr_scale=0.1))
    offsets = {name for name in plain if scaled[name] != plain[name]}
    assert offsets == {name for name in plain if ".dcn.offset." in name}
    for name in offsets:
        assert scaled[name] == pytest.approx((0.1 * plain[name][0], plain[name][1]))


def test_groups_say_their_factor_for_schedules_that_set_rates():
    optimizer = build_optim_wrapper(Detector(), wrapper_config()).optimizer
    scales = [(group["lr"], group["lr_scale"]) for group in optimizer.param_groups]
    assert all(lr == pytest.approx(1e-3 * scale) for lr, scale in scales)
    assert len(
        {
            (lr, group["weight_decay"])
            for (lr, _), group in zip(scales, optimizer.param_groups, strict=True)
        }
    ) == len(scales)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dino_head=True), "expected paramwise_cfg with depths, .* got dino_head"),
        (dict(layer_decay_rate=1.5), "expected 0 < layer_decay_rate <= 1, got 1.5"),
        (dict(layer_decay_rate=None), "expected 0 < layer_decay_rate <= 1, got None"),
        (dict(offset_lr_scale=-1.0), "expected offset_lr_scale >= 0, got -1.0"),
        (dict(offset_lr_scale="1"), "expected offset_lr_scale >= 0, got '1'"),
        (dict(first_layer_names="level_embed"), "= a list of parts of names, got 'level_embed'"),
        (dict(first_layer_names=["stem", ""]), "= a list of parts of names, got"),
        (dict(depths=[4, 4, 18, 4]), r"expected depths = \[1, 1, 2, 1\] as the backbone's"),
        (dict(num_layers=30), "expected num_layers = 5, the sum of depths, got 30"),
    ],
)
def test_options_that_do_not_fit_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        build_optim_wrapper(Detector(), wrapper_config(**options))


def test_a_model_without_an_internimage_is_an_error():
    with pytest.raises(ValueError, match="expected a model with an InternImage, got Linear"):
        build_optim_wrapper(nn.Linear(2, 2), wrapper_config())


def test_an_optimizer_without_a_rate_is_an_error():
    config = wrapper_config()
    del config["optimizer"]["lr"]
    with pytest.raises(ValueError, match="expected an optimizer with lr and weight_decay"):
        build_optim_wrapper(Detector(), config)


def test_the_constructor_has_the_original_name():
    found = OPTIM_WRAPPER_CONSTRUCTORS.get("CustomLayerDecayOptimizerConstructor")
    assert found is LayerDecayOptimWrapperConstructor
