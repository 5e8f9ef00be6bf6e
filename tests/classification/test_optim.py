"""Rates of each parameter: layer-wise decay, DCNv3's own factor, frozen stages, in all mixtures."""

import itertools

import pytest
import torch

import internimage
from classification.config import get_default_config
from classification.optim import build_optimizer, build_scheduler, learning_rate_factor
from internimage.param_groups import freeze_stages

BASE_LR, FACTOR = 1e-3, 2.0
DECAY, DCN = 0.5, 0.1


def rates(decays: bool, dcn: float | None, frozen: tuple[int, ...]) -> dict[str, float]:
    """The rate of each parameter after the first step of the schedule; depths are 1-1-2-1."""
    config = get_default_config()
    config.TRAIN.update({"BASE_LR": BASE_LR, "WARMUP_EPOCHS": 0, "EPOCHS": 2})
    config.TRAIN.update({"LR_LAYER_DECAY": decays, "LR_LAYER_DECAY_RATIO": DECAY})
    config.TRAIN.OPTIMIZER.DCN_LR_MUL = dcn
    model = internimage.create_model("internimage_test_h", num_classes=3)
    freeze_stages(model, frozen)
    optimizer = build_optimizer(config, model, factor=FACTOR)
    build_scheduler(config, optimizer, steps_per_epoch=2, factor=FACTOR).step_update(0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: group["lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


# Parameter -> stage, and the blocks behind it.
PLACES = {
    "patch_embed.conv1.weight": (None, 4),
    "levels.0.blocks.0.mlp.fc1.weight": (0, 4),
    "levels.0.downsample.conv.weight": (0, 3),
    "levels.1.blocks.0.dcn.offset.weight": (1, 3),
    "levels.2.blocks.0.dcn.center_feature_scale_proj_weight": (2, 2),
    "levels.2.blocks.1.dcn.offset.bias": (2, 1),
    "levels.2.blocks.1.dcn.mask.weight": (2, 1),
    "levels.3.blocks.0.mlp.fc2.weight": (3, 0),
    "head.weight": (None, 0),
}
IS_DCN = ("offset", "center_feature_scale_proj")


@pytest.mark.parametrize(
    ("decays", "dcn", "frozen"),
    list(itertools.product([False, True], [None, DCN], [(), (1,), (0, 2)])),
)
def test_a_rate_is_the_product_of_its_factors(decays, dcn, frozen):
    found = rates(decays, dcn, frozen)
    for name, (stage, blocks_behind) in PLACES.items():
        if stage in frozen:
            assert name not in found
            continue
        expected = BASE_LR * FACTOR * (DECAY**blocks_behind if decays else 1.0)
        if dcn is not None and any(word in name for word in IS_DCN):
            expected *= dcn
        assert found[name] == pytest.approx(expected), name


def test_vectors_and_biases_do_not_decay():
    config = get_default_config()
    model = internimage.create_model("internimage_test_s", num_classes=3)
    optimizer = build_optimizer(config, model, factor=1.0)
    decays = {
        parameter: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(decays) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        has_none = parameter.ndim == 1 or name.endswith(".bias")
        assert decays[parameter] == (0.0 if has_none else config.TRAIN.WEIGHT_DECAY), name


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.9), "eps": 1e-6}),
    ],
)
def test_the_optimiser_has_its_settings(name, kind, options):
    config = get_default_config()
    config.TRAIN.OPTIMIZER.update({"NAME": name, "MOMENTUM": 0.7, "BETAS": (0.8, 0.9), "EPS": 1e-6})
    model = internimage.create_model("internimage_test_t", num_classes=3)
    optimizer = build_optimizer(config, model, factor=1.0)
    assert type(optimizer) is kind
    assert {key: optimizer.defaults[key] for key in options} == options


@pytest.mark.parametrize(
    ("name", "at"),
    [
        # rates at the start, after the warm-up, in the middle of the run and at its last step
        ("cosine", {0: 0.1, 5: 0.55, 19: 0.914404, 50: 0.505, 99: 0.010244}),
        ("linear", {0: 0.1, 10: 1.0, 55: 0.505, 99: 0.021}),
        ("step", {0: 0.1, 10: 1.0, 50: 0.25, 99: 0.0625}),
    ],
)
def test_the_schedule_warms_up_and_falls(name: str, at: dict[int, float]):
    config = get_default_config()
    config.TRAIN.update({"EPOCHS": 10, "WARMUP_EPOCHS": 1, "BASE_LR": 1.0})
    config.TRAIN.update({"WARMUP_LR": 0.1, "MIN_LR": 0.01})
    config.TRAIN.LR_SCHEDULER.update({"NAME": name, "DECAY_EPOCHS": 2, "DECAY_RATE": 0.5})
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=FACTOR)
    scheduler = build_scheduler(config, optimizer, steps_per_epoch=10, factor=FACTOR)
    for step, rate in at.items():
        scheduler.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(FACTOR * rate, rel=1e-4), step


def test_a_run_of_one_step_has_its_rate_and_no_word_of_timms(caplog):
    config = get_default_config()
    config.TRAIN.update({"EPOCHS": 1, "WARMUP_EPOCHS": 0, "BASE_LR": 1.0})
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=FACTOR)
    build_scheduler(config, optimizer, steps_per_epoch=1, factor=FACTOR).step_update(0)
    assert optimizer.param_groups[0]["lr"] == FACTOR
    assert not caplog.records


def test_the_rates_are_for_512_images_a_step():
    config = get_default_config()
    config.DATA.BATCH_SIZE, config.TRAIN.ACCUMULATION_STEPS = 16, 4
    assert learning_rate_factor(config, world_size=32) == 16 * 4 * 32 / 512
