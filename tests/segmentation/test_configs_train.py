"""A model of every family learns from its own config's settings, at the original's rates."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmseg.registry import MODELS

import internimage.integrations.openmmlab.segmentation  # noqa: F401  (registers the models)
from tests.config_facts import build_as_if_trained
from tests.segmentation.config_facts import load_current
from tests.segmentation.small_segmentors import WIDTHS, sample, with_mask

SIDE = 64


@dataclasses.dataclass(frozen=True)
class Family:
    """A config, the small backbone that stands for its own, and that one's widths."""

    config: str
    arch: str
    widths: tuple[int, ...] = tuple(WIDTHS)


FAMILIES = {
    "UperNet": Family("ade20k/upernet_internimage_t_512_160k_ade20k", "test_t"),
    "UperNet-L": Family("cityscapes/upernet_internimage_l_512x1024_160k_cityscapes", "test_s"),
    "UperNet-H": Family("ade20k/upernet_internimage_h_896_160k_ade20k", "test_h"),
    "UperNet-G": Family("ade20k/upernet_internimage_g_896_160k_ade20k", "test_g"),
    "SegFormer": Family(
        "cityscapes/segformer_internimage_l_512x1024_160k_mapillary2cityscapes", "test_s"
    ),
    "Mask2Former": Family("ade20k/mask2former_internimage_h_896_80k_cocostuff2ade20k_ss", "test_h"),
    "Mask2Former, windows": Family(
        "mapillary/mask2former_internimage_h_896x896_80k_mapillary", "test_h"
    ),
}


def reduced(family: Family) -> Config:
    """Return the config with a small backbone and narrow heads, and no checkpoint."""
    config = copy.deepcopy(load_current(family.config))
    model = config.model
    model.data_preprocessor.size = (SIDE, SIDE)
    model.backbone.arch = family.arch
    model.backbone.drop_path_rate = 0.0  # a branch that is left out has no gradient
    model.backbone.pop("init_cfg", None)
    head = model.decode_head
    head.in_channels = list(family.widths)
    if "auxiliary_head" in model:
        model.auxiliary_head.update(in_channels=family.widths[2], channels=16)
    if "num_queries" not in head:
        head.channels = 16
        return config
    head.update(feat_channels=32, out_channels=32, num_queries=12)
    head.train_cfg.num_points = 128
    pixels, decoder = head.pixel_decoder, head.transformer_decoder
    pixels.norm_cfg.num_groups = 8
    pixels.encoder.num_layers, decoder.num_layers = 1, 2
    for encoding in (head.positional_encoding, pixels.positional_encoding):
        encoding.num_feats = 16
    for layer in (pixels.encoder.layer_cfg, decoder.layer_cfg):
        layer.ffn_cfg.update(embed_dims=32, feedforward_channels=48)
        for key in ("self_attn_cfg", "cross_attn_cfg"):
            if key in layer:
                layer[key].update(embed_dims=32, num_heads=4)
    if model.test_cfg.mode == "slide":
        model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(SIDE // 2, SIDE // 2))
    return config


def batch_of(shapes: list[tuple[int, int]], num_classes: int) -> dict[str, list[Any]]:
    """Return images of noise, each of four classes and a stripe to be ignored."""
    generator = torch.Generator().manual_seed(0)
    packed = []
    for height, width in shapes:
        mask = torch.randint(0, num_classes, (2, 2), generator=generator)
        mask = mask.repeat_interleave(height // 2, 0).repeat_interleave(width // 2, 1)
        mask[: height // 8] = 255
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        packed.append({"inputs": image, "data_samples": with_mask(sample(height, width), mask)})
    return pseudo_collate(packed)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_one_step_has_finite_losses_reaches_every_parameter_and_changes_it(name: str):
    config = reduced(FAMILIES[name])
    model = build_as_if_trained(config)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    batch = batch_of([(SIDE, SIDE), (SIDE - 16, SIDE)], config.model.decode_head.num_classes)
    data = model.data_preprocessor(batch, training=True)
    total, log = model.parse_losses(model(**data, mode="loss"))
    assert len(log) >= 3 and all(torch.isfinite(value) for value in log.values())
    optimizer.backward(total)
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert {k for k, grad in gradients.items() if grad is None or not grad.abs().sum() > 0} == set()
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer.step()
    assert {k for k, value in model.named_parameters() if torch.equal(value, before[k])} == set()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_prediction_has_a_class_for_each_pixel_of_the_original_image(name: str):
    config = reduced(FAMILIES[name])
    model = build_as_if_trained(config).eval()
    num_classes = config.model.decode_head.num_classes
    # Twice the size of the file; the second way goes over several windows, where there are any.
    for shape in ((SIDE, SIDE), (SIDE, 2 * SIDE)):
        batch = batch_of([shape], num_classes)
        batch["data_samples"][0].set_metainfo({"ori_shape": (shape[0] // 2, shape[1] // 2)})
        with torch.no_grad():
            (found,) = model.test_step(batch)
        assert found.pred_sem_seg.data.shape == (1, shape[0] // 2, shape[1] // 2)
        assert 0 <= found.pred_sem_seg.data.min() and found.pred_sem_seg.data.max() < num_classes
        assert found.seg_logits.data.shape == (num_classes, shape[0] // 2, shape[1] // 2)


def test_a_smaller_image_is_padded_to_the_crop_and_what_is_added_is_ignored():
    config = load_current("cityscapes/upernet_internimage_t_512x1024_160k_cityscapes")
    init_default_scope("mmseg")
    preprocessor = MODELS.build(config.model.data_preprocessor)
    batch = batch_of([(20, 30)], 19)
    mask = batch["data_samples"][0].gt_sem_seg.data.clone()
    data = preprocessor(batch, training=True)
    assert data["inputs"].shape == (1, 3, 512, 1024)
    padded = data["data_samples"][0].gt_sem_seg.data
    assert torch.equal(padded[:, :20, :30], mask)
    assert (padded[:, 20:] == 255).all() and (padded[:, :, 30:] == 255).all()
    # The mean colour: zero behind the norm.
    assert not data["inputs"][:, :, 20:].any() and not data["inputs"][..., 30:].any()


def rates_of(config: Config, steps: list[int]) -> list[float]:
    """Return the learning rates with which a run takes some steps, counted from 0."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=config.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optimizer))
        for scheduler in config.param_scheduler
    ]
    found = []
    for step in range(max(steps) + 1):
        if step in steps:
            found.append(optimizer.param_groups[0]["lr"])
        for scheduler in schedulers:
            scheduler.step()
    return found


def original_rate(config: Config, length: int, step: int) -> float:
    """Return the rate of the original's schedule: a line to zero, times a line up in warm-up."""
    falling = config.optim_wrapper.optimizer.lr * (1 - step / length)
    return falling * (1 - (1 - step / 1500) * (1 - 1e-6)) if step < 1500 else falling


@pytest.mark.filterwarnings("ignore:Detected call of .*scheduler.step")
@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("nyu_depth_v2/mask2former_internimage_h_480_40k_nyu", 40_000),
        ("mapillary/mask2former_internimage_h_896x896_80k_mapillary", 80_000),
        ("ade20k/upernet_internimage_t_512_160k_ade20k", 160_000),
    ],
)
def test_the_learning_rate_of_a_step_is_the_originals(name: str, length: int):
    config = load_current(name)
    assert config.train_cfg.max_iters == length
    steps = [0, 1, 2, 100, 1498, 1499, 1500, 1501, 7777, length // 2, length - 2, length - 1]
    expected = [original_rate(config, length, step) for step in steps]
    assert rates_of(config, steps) == pytest.approx(expected, rel=1e-6)
