"""Segmentors take any image, undo what was done to it, and copy no scores without need."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.runner import load_checkpoint
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from torch import nn

from internimage.integrations.openmmlab.segmentation import InternImageSegTTA
from tests.segmentation.small_segmentors import (
    CLASSES,
    HEADS,
    build,
    mask2former_head,
    sample,
    uper_head,
    with_mask,
)

ONE_OUTPUT = dict(num_classes=2, out_channels=1, threshold=0.3)


def postprocess(scores, *samples):
    """What an ordinary segmentor makes of scores (N, C, H, W)."""
    return build(uper_head()).postprocess_result(scores, list(samples))


def old_names(model):
    """A Mask2Former's weights under the names of 2022."""
    weights = {}
    for key, value in model.state_dict().items():
        parts = key.partition("transformer_decoder.layers.")
        if parts[1]:
            key = key.replace(".cross_attn.", ".attentions.0.")
            key = key.replace(".self_attn.", ".attentions.1.")
        key = key.replace(".self_attn.", ".attentions.0.")
        weights[key.replace(".ffn.", ".ffns.0.")] = value
    return weights


# --------------------------------------------------------------------------------------------------
# Sizes
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(1, 1), (1, 75), (75, 1), (33, 47), (64, 96)])
def test_an_image_of_any_size_gets_labels_of_its_size(head, size):
    with torch.no_grad():
        (result,) = build(HEADS[head]()).predict(torch.randn(1, 3, *size), [sample(*size)])
    assert result.seg_logits.data.shape == (CLASSES, *size)
    assert torch.isfinite(result.seg_logits.data).all()
    assert result.pred_sem_seg.data.shape == (1, *size)
    assert result.pred_sem_seg.data.dtype == torch.int64


@pytest.mark.parametrize("head", HEADS)
def test_scores_have_the_size_of_the_input_whatever_the_metadata_say(head):
    model = build(HEADS[head]())
    images = torch.randn(2, 3, 40, 56)
    stale = dict(img_shape=(17, 19), pad_shape=(23, 29, 3))
    with torch.no_grad():
        found = model.encode_decode(images, [stale, stale])
        expected = model.encode_decode(images, [{}, {}])
    assert found.shape == (2, CLASSES, 40, 56)
    assert torch.equal(found, expected)
    assert stale == dict(img_shape=(17, 19), pad_shape=(23, 29, 3))


def test_images_of_one_batch_come_back_at_their_own_original_sizes():
    with torch.no_grad():
        results = build(uper_head()).predict(
            torch.randn(2, 3, 32, 48), [sample(64, 96), sample(20, 30)]
        )
    assert [tuple(r.pred_sem_seg.shape) for r in results] == [(64, 96), (20, 30)]


def test_without_samples_the_scores_stay_as_they_are():
    model = build(uper_head())
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        results = model.predict(images)
        expected = model.encode_decode(images, [{}, {}])
    assert torch.equal(torch.stack([r.seg_logits.data for r in results]), expected)


# --------------------------------------------------------------------------------------------------
# What is undone
# --------------------------------------------------------------------------------------------------


def test_scores_of_the_right_size_are_not_copied():
    scores = torch.randn(2, CLASSES, 10, 14)
    for result, own in zip(
        postprocess(scores, sample(10, 14), sample(10, 14)), scores, strict=True
    ):
        assert result.seg_logits.data.data_ptr() == own.data_ptr()
        assert torch.equal(result.pred_sem_seg.data[0], own.argmax(0))


@pytest.mark.parametrize("field", ["padding_size", "img_padding_size"])
def test_padding_is_cut_off_before_anything_is_resized(field):
    scores = torch.randn(1, CLASSES, 10, 14)
    left, right, top, bottom = 1, 2, 3, 1
    padding = {field: (left, right, top, bottom)}
    inner = scores[:, :, 3:9, 1:12]
    (same,) = postprocess(scores, sample(6, 11, **padding))
    assert torch.equal(same.seg_logits.data, inner[0])
    (larger,) = postprocess(scores, sample(12, 22, **padding))
    expected = F.interpolate(inner, (12, 22), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(larger.seg_logits.data, expected)


@pytest.mark.parametrize(
    ("direction", "axes"), [("horizontal", [2]), ("vertical", [1]), ("diagonal", [1, 2])]
)
def test_flips_are_undone_behind_the_padding(direction, axes):
    scores = torch.randn(1, CLASSES, 10, 14)
    meta = dict(flip=True, flip_direction=direction, padding_size=(0, 4, 0, 2))
    (result,) = postprocess(scores, sample(8, 10, **meta))
    assert torch.equal(result.seg_logits.data, scores[0, :, :8, :10].flip(axes))


def test_an_unknown_flip_is_an_error():
    with pytest.raises(ValueError, match="expected flip_direction = horizontal, .* got 'sideways'"):
        postprocess(
            torch.randn(1, CLASSES, 4, 4), sample(4, 4, flip=True, flip_direction="sideways")
        )


def test_one_output_is_a_probability_and_its_threshold_the_heads():
    model = build(uper_head(**ONE_OUTPUT))
    logits = torch.linspace(-3, 3, 24).view(1, 1, 4, 6)
    (result,) = model.postprocess_result(logits, [sample(4, 6)])
    torch.testing.assert_close(result.seg_logits.data, 1 / (1 + (-logits[0]).exp()))
    # 0.3 is the probability of logit -0.847
    assert torch.equal(result.pred_sem_seg.data, (logits[0] > -0.8473).long())
    assert 0 < result.pred_sem_seg.data.sum() < 24


# --------------------------------------------------------------------------------------------------
# Labels without scores
# --------------------------------------------------------------------------------------------------

LABELS_ALONE = dict(mode="whole", keep_scores=False)


@pytest.mark.parametrize("head", [uper_head(num_classes=21), uper_head(**ONE_OUTPUT)])
@pytest.mark.parametrize("meta", [{}, dict(flip=True, flip_direction="horizontal")])
@pytest.mark.parametrize("size", [(9, 11), (70, 90), (5, 4)])
def test_labels_are_the_same_when_scores_are_not_kept(head, meta, size):
    whole, alone = build(head), build(head, LABELS_ALONE)
    scores = 3 * torch.randn(1, whole.out_channels, 14, 14) - 1  # of either side of the threshold
    samples = [sample(*size, padding_size=(0, 3, 0, 5), **meta) for _ in range(2)]
    (expected,) = whole.postprocess_result(scores, samples[:1])
    (found,) = alone.postprocess_result(scores, samples[1:])
    assert "seg_logits" in expected and "seg_logits" not in found
    assert torch.equal(found.pred_sem_seg.data, expected.pred_sem_seg.data)
    assert len(found.pred_sem_seg.data.unique()) > 1


def test_the_first_of_equal_classes_is_the_label():
    model = build(uper_head(num_classes=20), LABELS_ALONE)
    scores = torch.zeros(1, 20, 4, 6)
    scores[0, [3, 10, 17]] = 1.0
    (result,) = model.postprocess_result(scores, [sample(8, 12)])
    assert (result.pred_sem_seg.data == 3).all()


def test_scores_that_nobody_sees_are_an_error_when_they_are_not_finite():
    scores = torch.zeros(1, CLASSES, 4, 6)
    scores[0, 2, 1, 1] = torch.nan
    image = sample(4, 6, img_path="b.png")
    with pytest.raises(ValueError, match="expected finite scores for b.png, got NaN or infinity"):
        build(uper_head(), LABELS_ALONE).postprocess_result(scores, [image])
    with pytest.raises(ValueError, match="expected finite scores for an image, got NaN"):
        build(uper_head(), LABELS_ALONE).postprocess_result(scores)


def test_large_scores_of_16_bits_are_finite():
    scores = torch.full((1, CLASSES, 40, 60), 100.0, dtype=torch.float16)
    (result,) = build(uper_head(), LABELS_ALONE).postprocess_result(scores, [sample(40, 60)])
    assert (result.pred_sem_seg.data == 0).all()


def test_views_cannot_be_averaged_without_scores():
    (result,) = build(uper_head(), LABELS_ALONE).predict(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="expected a model whose test_cfg has keep_scores = True"):
        InternImageSegTTA(build(uper_head())).merge_preds([[result, result]])


# --------------------------------------------------------------------------------------------------
# Learning
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_a_step_on_odd_sizes_gives_every_parameter_a_gradient(head):
    model = build(HEADS[head]()).train()
    labels = torch.arange(61 * 45).view(61, 45) // 600
    labels[:5] = 255
    samples = [with_mask(sample(61, 45), labels) for _ in range(2)]
    total, _ = model.parse_losses(model.loss(torch.randn(2, 3, 61, 45), samples))
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_one_image_a_step_is_an_error_that_says_what_to_do_for_upernet_and_none_for_others():
    samples = [with_mask(sample(64, 64), torch.zeros(64, 64))]
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="2 images or more .*batch_size = 2, or several GPUs"):
        build(uper_head()).train().loss(images, samples)
    for head in ("segformer", "mask2former"):
        losses = build(HEADS[head]()).train().loss(images, samples)
        assert all(torch.isfinite(value).all() for value in losses.values())


# --------------------------------------------------------------------------------------------------
# Weights and settings
# --------------------------------------------------------------------------------------------------


def test_released_names_load_by_any_way(tmp_path):
    model = build(mask2former_head())
    released = old_names(model)
    assert set(released) != set(model.state_dict())
    torch.save({"state_dict": released}, tmp_path / "released.pth")
    others = [build(mask2former_head()) for _ in range(3)]
    for other in others:
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
    direct, from_file, within = others
    direct.load_state_dict(released, strict=True)
    load_checkpoint(from_file, str(tmp_path / "released.pth"), strict=True)
    SegTTAModel(within).load_state_dict({f"module.{k}": v for k, v in released.items()})
    expected = model.state_dict()
    for other in others:
        assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())


def test_one_config_builds_several_models():
    config = ConfigDict(
        type="InternImageSegmentor",
        backbone=dict(type="InternImage", arch="test_t"),
        decode_head=mask2former_head(),
    )
    before = copy.deepcopy(config)
    first, second = MODELS.build(config), MODELS.build(config)
    assert config == before
    assert list(first.state_dict()) == list(second.state_dict())


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        (dict(mode="tiles"), "expected test_cfg with mode = whole or slide, got 'tiles'"),
        (
            dict(mode="slide", crop_size=(32, 32), stride=(32, 48)),
            r"stride <= crop_size, .* got stride = \(32, 48\) and crop_size = \(32, 32\)",
        ),
        (dict(keep_scores="no"), "expected test_cfg with keep_scores = True or False, got 'no'"),
        (dict(keep_score=False), "got keep_score; did you mean keep_scores"),
        (dict(mode="whole", panoptic_on=True), "mode, crop_size, stride, keep_scores, got panopt"),
        (dict(mode="slide", crop_size=(32, 32)), r"stride = \(height, width\), .* got None"),
        (dict(mode="slide", stride=(32, 32)), r"crop_size = \(height, width\), .* got None"),
        (dict(mode="slide", crop_size=512, stride=(32, 32)), "crop_size .* got 512"),
        (dict(mode="slide", crop_size=(32, 32), stride=(0, 32)), r"stride .* got \(0, 32\)"),
    ],
)
def test_settings_that_cannot_be_are_an_error_when_the_model_is_built_and_when_it_predicts(
    test_cfg, message
):
    with pytest.raises(ValueError, match=message):
        build(uper_head(), test_cfg)
    model = build(uper_head())
    model.test_cfg = ConfigDict(test_cfg)
    with pytest.raises(ValueError, match=message):
        model.predict(torch.randn(1, 3, 64, 64), [sample(64, 64)])


def test_windows_that_do_not_slide_are_told():
    with pytest.warns(UserWarning) as caught:
        build(uper_head(), dict(crop_size=(32, 32), stride=(16, 16)))
    told = [str(warning.message) for warning in caught if "no effect" in str(warning.message)]
    assert told == [
        f"InternImageSegmentor: test_cfg.{name} has no effect without mode = slide"
        for name in ("crop_size", "stride")
    ]
