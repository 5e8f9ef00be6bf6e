"""What is traced of a segmentor is the same function as what mmseg computes, at any size."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import SinePositionalEncoding
from mmseg.models.decode_heads import Mask2FormerHead
from torch import Tensor, nn

from internimage.export import ExportOptions
from internimage.integrations.openmmlab.export.deformable_attention import (
    TracedDeformableAttention,
)
from internimage.integrations.openmmlab.export.mask2former import TracedEncoding, centres_of
from internimage.integrations.openmmlab.export.pooling import (
    MatrixPool,
    pooling_matrix,
    replace_pooling,
)
from internimage.integrations.openmmlab.export.segmentor_parts import (
    Labels,
    Scores,
    TracedScores,
    traceable_scores,
)
from tests.segmentation.small_segmentors import CLASSES, HEADS, build, uper_head


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 6), (7, 13), (16, 12), (33, 40)])
@pytest.mark.parametrize("pooled", [1, 2, 3, 6])
def test_pooling_by_matrices_is_adaptive_pooling(size, pooled):
    x = random(2, 3, *size)
    expected = nn.AdaptiveAvgPool2d(pooled)(x)
    assert torch.allclose(MatrixPool((pooled, pooled))(x), expected, rtol=0, atol=1e-6)


def test_the_means_are_over_the_pixels_that_whole_numbers_say():
    for length in (*range(1, 200), 512, 1024, 4096):
        for size in (1, 2, 3, 6, 7):
            weights = pooling_matrix(length, size)
            for index in range(size):
                first, end = index * length // size, -(-(index + 1) * length // size)
                expected = torch.zeros(length)
                expected[first:end] = torch.tensor(1.0) / (end - first)
                assert torch.equal(weights[index], expected), (length, size, index)


def test_the_weights_of_each_mean_are_one_together():
    weights = pooling_matrix(10, 3)
    assert weights.sum(1).tolist() == [1, 1, 1]
    assert (weights > 0).sum(1).tolist() == [4, 4, 4]  # 0-3, 3-6, 6-9: they overlap


def test_all_adaptive_poolings_of_a_model_are_replaced_and_others_are_an_error():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Sequential(nn.AdaptiveAvgPool2d((3, 4))))
    x = random(1, 2, 9, 11)
    expected = model(x)
    replace_pooling(model)
    assert [type(module) for module in (model[0], model[1][0])] == [MatrixPool, MatrixPool]
    assert torch.allclose(model(x), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="adaptive poolings of a given height and width"):
        replace_pooling(nn.Sequential(nn.AdaptiveAvgPool2d((3, None))))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("numbers", [2, 4], ids=["points", "boxes"])
def test_deformable_attention_is_mmcvs(batch_first, numbers):
    torch.manual_seed(0)
    sizes = [(3, 5), (6, 9), (11, 17)]
    count = sum(height * width for height, width in sizes)
    attention = MultiScaleDeformableAttention(32, 4, 3, batch_first=batch_first, dropout=0.0).eval()
    nn.init.normal_(attention.sampling_offsets.weight, std=0.3)
    nn.init.normal_(attention.attention_weights.weight)
    tensors = [torch.randn(2, 7, 32), torch.randn(2, count, 32), torch.randn(2, 7, 32)]
    if not batch_first:
        tensors = [tensor.transpose(0, 1) for tensor in tensors]
    query, value, query_pos = tensors
    arguments: dict[str, Any] = dict(
        value=value,
        query_pos=query_pos,
        reference_points=torch.rand(2, 7, 3, numbers),
        key_padding_mask=torch.rand(2, count) > 0.8,
    )
    expected = attention(query, **arguments, spatial_shapes=torch.tensor(sizes))
    found = TracedDeformableAttention(attention)(query, **arguments, spatial_shapes=sizes)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_positions_without_a_mask_are_those_with_an_empty_one():
    encoding = SinePositionalEncoding(num_feats=8, normalize=True)
    mask = torch.zeros(2, 7, 9, dtype=torch.bool)
    assert torch.allclose(TracedEncoding(encoding)(mask), encoding(mask), rtol=0, atol=1e-6)
    assert centres_of(2, 4)[5].tolist() == [0.375, 0.75]


@pytest.mark.parametrize("size", [(64, 96), (57, 83), (33, 40)])
@pytest.mark.parametrize("head", HEADS)
def test_the_traced_scores_are_those_of_encode_decode(head, size):
    segmentor = build(HEADS[head]())
    before = {name: type(module) for name, module in segmentor.named_modules()}
    images = random(2, 3, *size)
    with torch.inference_mode():
        expected = Scores(segmentor)(images)
        traced = traceable_scores(segmentor, ExportOptions(), blue_first=False).eval()
        found = traced(images)
    assert isinstance(traced, TracedScores)
    assert found.shape == expected.shape == (2, CLASSES, *size)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    after = {name: type(module) for name, module in segmentor.named_modules()}
    assert after == before  # the model of the reference is not the one taken apart


def test_masks_that_decide_where_to_look_are_float32_in_a_half_mask2former():
    traced = traceable_scores(
        build(HEADS["mask2former"]()), ExportOptions(precision="fp16"), blue_first=False
    )
    dtypes = {name.partition(".")[0]: p.dtype for name, p in traced.named_parameters()}
    assert dtypes == {"features": torch.float16, "head": torch.float32}


def test_of_mmsegs_own_mask2former_the_head_is_float32_in_half_as_well():
    own = build(HEADS["mask2former"]())
    own.decode_head.__class__ = Mask2FormerHead
    images = random(1, 3, 64, 64)
    traced = traceable_scores(own, ExportOptions(precision="fp16"), blue_first=False)
    dtypes = {name.split(".")[1]: p.dtype for name, p in traced.named_parameters()}
    assert dtypes == {"backbone": torch.float16, "decode_head": torch.float32}
    with torch.inference_mode():
        found = traceable_scores(own, ExportOptions(), blue_first=False)(images)
        assert torch.allclose(found, Scores(own)(images), rtol=0, atol=1e-5)


def test_blue_comes_first_where_the_model_was_trained_so():
    segmentor = build(uper_head())
    images = random(1, 3, 64, 64)
    with torch.inference_mode():
        expected = Scores(segmentor)(images.flip(1))
        traced = traceable_scores(segmentor, ExportOptions(), blue_first=True)
        assert torch.allclose(Scores(segmentor, blue_first=True)(images), expected)
        assert (traced(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_labels_are_the_best_class_or_what_is_above_the_threshold():
    scores = random(2, 5, 8, 9)
    labels = Labels(nn.Identity(), threshold=0.5)(scores)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), scores.argmax(1))
    assert Labels(nn.Identity(), threshold=0.5)(random(1, 257, 2, 2)).dtype == torch.int32
    single = copy.deepcopy(scores[:, :1])
    found = Labels(nn.Identity(), threshold=0.7)(single)
    assert torch.equal(found.bool(), single[:, 0].sigmoid() > 0.7)
