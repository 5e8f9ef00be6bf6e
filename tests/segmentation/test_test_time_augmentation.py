"""Several views of an image are averaged as the original did: probabilities at its own size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.models.segmentors import SegTTAModel

from internimage.integrations.openmmlab.segmentation import InternImageSegTTA
from tests.segmentation.small_segmentors import (
    CLASSES,
    HEADS,
    build,
    metas,
    sample,
    uper_head,
    with_mask,
)

MEAN, STD = [120.0, 110.0, 100.0], [50.0, 55.0, 60.0]
SIZE = (45, 70)
# height and width of the view, and whether it is flipped
VIEWS = [((32, 50), None), ((32, 50), "horizontal"), ((64, 100), None), ((64, 100), "vertical")]
BINARY = dict(num_classes=2, out_channels=1, threshold=0.45)
AXES = {"horizontal": 2, "vertical": 1}


def build_with_norm(head, **fields):
    norm = dict(type="mmseg.SegDataPreProcessor", mean=MEAN, std=STD)
    return build(head, data_preprocessor=norm, **fields)


def views_of(pictures):
    """What a loader gives for pictures (3, H, W) of 0 to 255: for every view, all of them."""
    inputs, samples = [], []
    for size, flip in VIEWS:
        views = [F.interpolate(picture[None], size, mode="bilinear")[0] for picture in pictures]
        if flip:
            views = [view.flip(AXES[flip]) for view in views]
        inputs.append(views)
        samples.append(
            [
                sample(
                    *size,
                    ori_shape=tuple(picture.shape[1:]),
                    flip=bool(flip),
                    flip_direction=flip,
                    img_path=f"{i}.png",
                )
                for i, picture in enumerate(pictures)
            ]
        )
    return {"inputs": inputs, "data_samples": samples}


def mean_by_hand(model, data, image):
    """The mean over the views of one image's probabilities, each view by itself (C, Ho, Wo)."""
    total = 0
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for views, samples in zip(data["inputs"], data["data_samples"], strict=True):
        meta = samples[image].metainfo
        with torch.no_grad():
            features = model.extract_feat(((views[image] - mean) / std)[None])
            scores = model.decode_head.predict(features, metas([samples[image]]), {})
        scores = F.interpolate(scores, meta["ori_shape"], mode="bilinear")[0].double()
        probabilities = scores.softmax(0) if len(scores) > 1 else scores.sigmoid()
        if meta["flip"]:
            probabilities = probabilities.flip(AXES[meta["flip_direction"]])
        total = total + probabilities
    return (total / len(VIEWS)).numpy()


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(1, 3, 5, 7, generator=generator) * 255 for _ in range(2)]
    sizes = [SIZE, (70, 45)]
    return [F.interpolate(c, s, mode="bilinear")[0] for c, s in zip(coarse, sizes, strict=True)]


@pytest.mark.parametrize(
    ("head", "changes"),
    [*((head, {}) for head in HEADS), pytest.param("upernet", BINARY, id="upernet-one_output")],
)
def test_the_merged_scores_are_the_mean_of_the_views_probabilities(pictures, head, changes):
    model = build_with_norm(HEADS[head](**changes))
    data = views_of(pictures)
    expected = [mean_by_hand(model, data, i) for i in range(len(pictures))]
    merged = InternImageSegTTA(model).test_step(views_of(pictures))
    for i, (result, mean) in enumerate(zip(merged, expected, strict=True)):
        assert result.img_path == f"{i}.png" and not result.flip
        np.testing.assert_allclose(result.seg_logits.data, mean, rtol=1e-4, atol=1e-6)
        labels = result.pred_sem_seg.data
        assert labels.dtype == torch.int64 and labels.shape == (1, *pictures[i].shape[1:])
        if changes:
            assert np.array_equal(labels[0], mean[0] > BINARY["threshold"])
        else:
            # where the best two are not as good as equal
            clear = np.diff(np.sort(mean, axis=0)[-2:], axis=0)[0] > 1e-5
            assert clear.mean() > 0.9
            assert np.array_equal(labels[0].numpy()[clear], mean.argmax(0)[clear])


def test_labels_of_several_classes_are_those_that_mmseg_merges(pictures):
    model = build_with_norm(uper_head())
    data = views_of(pictures[:1])
    (ours,) = InternImageSegTTA(model).test_step(data)
    (theirs,) = SegTTAModel(model).test_step(views_of(pictures[:1]))
    assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)


def test_predictions_that_are_there_already_are_merged_alike(pictures):
    model = build_with_norm(uper_head())
    tta = InternImageSegTTA(model)
    data = views_of(pictures)
    views = zip(data["inputs"], data["data_samples"], strict=True)
    predictions = [model.test_step({"inputs": i, "data_samples": s}) for i, s in views]
    merged = tta.merge_preds(list(zip(*predictions, strict=True)))
    for one, other in zip(merged, tta.test_step(views_of(pictures)), strict=True):
        torch.testing.assert_close(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


def test_the_true_labels_of_the_first_view_stay_with_the_merged_sample(pictures):
    data = views_of(pictures[:1])
    mask = torch.arange(SIZE[0] * SIZE[1]).view(SIZE) % CLASSES
    for samples in data["data_samples"]:
        with_mask(samples[0], mask)
    (merged,) = InternImageSegTTA(build_with_norm(uper_head())).test_step(data)
    assert torch.equal(merged.gt_sem_seg.data[0], mask)


def test_no_view_keeps_its_scores_while_the_next_is_predicted(pictures, monkeypatch):
    model = build_with_norm(uper_head())
    kept = []
    predict = model.test_step

    def spy(data):
        kept.append(sum("seg_logits" in sample for done in seen for sample in done))
        seen.append(predict(data))
        return seen[-1]

    seen = []
    monkeypatch.setattr(model, "test_step", spy)
    InternImageSegTTA(model).test_step(views_of(pictures))
    assert kept == [0] * len(VIEWS)
