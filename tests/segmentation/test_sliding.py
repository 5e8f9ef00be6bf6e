"""Windows cover an image, their mean is its scores, and one is held at a time."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from internimage.integrations.openmmlab.segmentation.sliding import window_spans
from tests.segmentation.small_segmentors import (
    CLASSES,
    HEADS,
    build,
    metas,
    sample,
    uper_head,
)

SLIDE = dict(mode="slide", crop_size=(32, 48), stride=(24, 32))


def starts_by_hand(length, crop, stride):
    """Step by step: a window that would leave the image is moved back to its end."""
    starts = [0]
    while starts[-1] + crop < length:
        starts.append(min(starts[-1] + stride, length - crop))
    return starts


@pytest.mark.parametrize("length", [1, 7, 31, 32, 33, 55, 56, 57, 100, 257])
@pytest.mark.parametrize(("crop", "stride"), [(32, 24), (32, 32), (32, 1), (5, 3)])
def test_windows_stand_a_stride_apart_and_the_last_at_the_end(length, crop, stride):
    spans = window_spans(length, crop, stride)
    if length <= crop:
        assert spans == [slice(0, length)]
        return
    assert [span.start for span in spans] == starts_by_hand(length, crop, stride)
    assert all(span.stop - span.start == crop for span in spans)
    assert set().union(*(range(span.start, span.stop) for span in spans)) == set(range(length))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(61, 100), (32, 130), (20, 90), (90, 30)])
def test_scores_are_the_mean_of_those_of_the_windows_cut_out_by_hand(head, size):
    model = build(HEADS[head](), SLIDE)
    images = torch.randn(2, 3, *size)
    samples = [sample(*size), sample(*size)]
    (crop_height, crop_width), (down, across) = SLIDE["crop_size"], SLIDE["stride"]
    total = torch.zeros(2, CLASSES, *size, dtype=torch.float64)
    times = torch.zeros(size, dtype=torch.float64)
    with torch.no_grad():
        for top in starts_by_hand(size[0], crop_height, down):
            for left in starts_by_hand(size[1], crop_width, across):
                window = images[:, :, top : top + crop_height, left : left + crop_width]
                shape = tuple(window.shape[2:])
                whole = [sample(*shape), sample(*shape)]
                scores = model.decode_head.predict(model.extract_feat(window), metas(whole), {})
                total[:, :, top : top + shape[0], left : left + shape[1]] += scores
                times[top : top + shape[0], left : left + shape[1]] += 1
        found = model.predict(images, samples)
    expected = total / times
    for i, result in enumerate(found):
        np.testing.assert_allclose(result.seg_logits.data, expected[i], rtol=1e-4, atol=1e-5)
        assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(0))


def test_heads_get_the_sizes_of_the_window_and_the_callers_metadata_stay(monkeypatch):
    model = build(uper_head(), SLIDE)
    samples = [sample(61, 100, img_path="a.png"), sample(61, 100, img_path="b.png")]
    before = metas(samples)
    seen = []
    predict = model.decode_head.predict

    def spy(features, batch_img_metas, test_cfg):
        seen.extend(batch_img_metas)
        return predict(features, batch_img_metas, test_cfg)

    monkeypatch.setattr(model.decode_head, "predict", spy)
    given = metas(samples)
    with torch.no_grad():
        model.inference(torch.randn(2, 3, 61, 100), given)
    assert given == before
    assert len(seen) == 2 * 3 * 3
    for meta in seen:
        assert tuple(meta["img_shape"]) == tuple(meta["pad_shape"]) == (32, 48)
        assert meta["ori_shape"] == (61, 100)
    assert [meta["img_path"] for meta in seen[:2]] == ["a.png", "b.png"]


@pytest.mark.parametrize("head", HEADS)
def test_an_image_that_is_smaller_than_a_window_is_predicted_as_a_whole(head):
    images = torch.randn(1, 3, 30, 44)
    with torch.no_grad():
        (slid,) = build(HEADS[head](), SLIDE).predict(images, [sample(30, 44)])
        (whole,) = build(HEADS[head]()).predict(images, [sample(30, 44)])
    assert torch.equal(slid.seg_logits.data, whole.seg_logits.data)


class LargestTotal(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations made and that are still alive.

    What an operation returns counts once a storage, views of it do not.

    Args:
        *known: tensors that do not count.
    """

    def __init__(self, *known):
        super().__init__()
        self.alive = 0
        self.largest = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage):
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes()
        self.alive += size
        self.largest = max(self.largest, self.alive)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size):
        self.known.discard(key)
        self.alive -= size


def largest_total(model, images, original_size=None):
    """Bytes of the tensors alive at once in a prediction, without images and weights."""
    known = (images, *model.parameters(), *model.buffers())
    with torch.no_grad(), LargestTotal(*known) as totals:
        size = original_size or images.shape[2:]
        results = model.predict(images, [sample(*size) for _ in images])
    assert len(results) == len(images)
    return totals.largest


def test_the_count_of_bytes_alive_is_right():
    given = torch.ones(1000)
    with LargestTotal(given) as totals:
        first = given[:10].expand(100, 10).reshape(1000)
        second = (first + 1).view(10, 100)[2:5]
        third = first.clone() + second.new_zeros(1000)  # and what it is added to, for a moment
        del first, second
        fourth = third * 2
    assert totals.largest == 4 * 5000
    assert totals.alive == 4 * 2000
    del third, fourth
    assert totals.alive == 0


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_one_window_is_held_at_a_time_beside_the_scores(head):
    crop = (64, 64)
    model = build(HEADS[head](), dict(mode="slide", crop_size=crop, stride=(48, 48)))
    one = largest_total(model, torch.randn(1, 3, *crop))
    for windows, side in {9: 160, 16: 208, 36: 304}.items():
        assert len(window_spans(side, 64, 48)) ** 2 == windows
        many = largest_total(model, torch.randn(1, 3, side, side))
        scores, labels = 4 * CLASSES * side**2, 8 * side**2
        # first the windows beside the scores, then, when those are gone, the labels
        assert many == pytest.approx(scores + max(one, labels), rel=0.05)


def test_whole_images_have_their_scores_once():
    # of 150 classes, so that the scores are more than what they are made from
    model = build(uper_head(num_classes=150))
    scores = 4 * 150 * 96**2
    assert scores < largest_total(model, torch.randn(1, 3, 96, 96)) < 1.5 * scores


def test_labels_alone_take_a_part_of_the_room_that_scores_of_the_original_size_take():
    def largest(keep_scores):
        model = build(uper_head(num_classes=150), dict(mode="whole", keep_scores=keep_scores))
        return largest_total(model, torch.randn(1, 3, 64, 64), (256, 256))

    scores = 4 * 150 * 256**2
    assert scores < largest(keep_scores=True) < 1.2 * scores
    assert largest(keep_scores=False) < 0.25 * scores
