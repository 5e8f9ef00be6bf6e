"""Mask2Former adds up classes before it resizes, and learns from masks without any class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.segmentation.small_segmentors import (
    CLASSES,
    build,
    mask2former_head,
    sample,
    with_mask,
)


def predict(head, size=(64, 96)):
    """A model with this head, images, and its scores of them (2, C, H, W)."""
    model = build(head)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        results = model.predict(images, [sample(*size), sample(*size)])
    return model, images, torch.stack([result.seg_logits.data for result in results])


def test_scores_are_sums_over_queries_at_the_masks_size_and_then_resized():
    model, images, scores = predict(mask2former_head())
    with torch.no_grad():
        class_logits, mask_logits = model.decode_head(model.extract_feat(images))
    sums = torch.zeros(2, CLASSES, 16, 24, dtype=torch.float64)
    for i in range(2):
        for logits, mask in zip(
            class_logits[-1][i].double(), mask_logits[-1][i].double(), strict=True
        ):
            probabilities = logits.exp() / logits.exp().sum()
            for label in range(CLASSES):
                sums[i, label] += probabilities[label] / (1 + (-mask).exp())
    expected = F.interpolate(sums, (64, 96), mode="bilinear")
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_mmsegs_head_resizes_first_and_has_other_scores_from_the_same_weights():
    ours = predict(mask2former_head())[2]
    theirs = predict(mask2former_head(type="Mask2FormerHead"))[2]
    assert (ours - theirs).abs().max() > 1e-3


def ignored(height=64, width=64):
    return torch.full((height, width), 255)


def learn(masks):
    """Losses and gradients of a step on masks."""
    model = build(mask2former_head()).train()
    torch.manual_seed(0)
    samples = [with_mask(sample(64, 64), mask) for mask in masks]
    losses = model.loss(torch.randn(len(masks), 3, 64, 64), samples)
    total, _ = model.parse_losses(losses)
    total.backward()
    return losses, dict(model.named_parameters())


@pytest.mark.parametrize("others", [0, 1])
def test_an_image_that_is_ignored_everywhere_gives_finite_losses_and_gradients(others):
    squares = torch.arange(64 * 64).view(64, 64) // 1024
    losses, parameters = learn([ignored()] + [squares] * others)
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["decode.loss_cls"] > 0
    assert (losses["decode.loss_mask"] > 0) == bool(others)
    # of every parameter, or ranks that average gradients would wait for each other
    assert all(torch.isfinite(p.grad).all() for p in parameters.values() if p.requires_grad)


def test_a_single_class_and_class_weights_of_another_number_are_an_error():
    with pytest.raises(ValueError, match=r"expected num_classes >= 2, .* got 1"):
        build(mask2former_head(num_classes=1))
    with pytest.raises(ValueError, match=r"num_classes \+ 1 = 5 numbers, .* got 6"):
        build(mask2former_head(num_classes=4))


def test_a_field_that_is_unknown_is_an_error_and_one_that_is_not_looked_at_warns():
    with pytest.raises(TypeError, match="expected the fields of mmseg's Mask2FormerHead, got num_"):
        build(mask2former_head(num_querys=100))
    with pytest.warns(UserWarning, match="in_index, strides has no effect"):
        build(mask2former_head(strides=[4, 8, 16, 32], in_index=[0, 1, 2, 3]))


def test_the_raw_outputs_can_be_had_as_from_any_segmentor():
    model = build(mask2former_head())
    with torch.no_grad():
        class_logits, mask_logits = model(torch.randn(2, 3, 50, 70), mode="tensor")
    assert len(class_logits) == len(mask_logits) == 4
    assert class_logits[-1].shape == (2, 6, CLASSES + 1)
    assert mask_logits[-1].shape == (2, 6, 13, 18)
