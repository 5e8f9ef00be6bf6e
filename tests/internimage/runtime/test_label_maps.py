"""Scores become label maps as mmseg makes them: resized, windows added up, the best class taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from internimage.integrations.openmmlab.segmentation.sliding import mean_over_windows
from internimage.runtime import Segmentor
from internimage.runtime.label_maps import label_scores, scores_of_windows
from tests.internimage.runtime.runner_metadata import make_metadata


def random_scores(classes: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(classes, 13, 17)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 8, 19, 300])
def test_the_best_class_of_enlarged_scores_is_taken(classes):
    scores = random_scores(classes)
    large = F.interpolate(torch.from_numpy(scores)[None], (40, 30), mode="bilinear")[0]
    found = label_scores(scores, (40, 30), 0.5)
    assert np.array_equal(found, large.argmax(0).numpy())
    assert found.dtype == (np.uint8 if classes <= 256 else np.uint16)


def test_of_equal_scores_the_first_class_is_taken():
    scores = np.zeros((20, 4, 4), np.float32)
    scores[[3, 17]] = 1
    assert (label_scores(scores, (9, 9), 0.5) == 3).all()
    assert (label_scores(np.full((9, 4, 4), -1e9, np.float32), (4, 4), 0.5) == 0).all()


def test_a_single_class_is_compared_with_its_threshold():
    scores = random_scores(1)
    expected = torch.from_numpy(scores[0]).sigmoid() > 0.7
    assert np.array_equal(label_scores(scores, (13, 17), 0.7), expected.numpy())


@pytest.mark.parametrize("size", [(60, 90), (20, 100), (33, 20), (10, 10)])
def test_windows_are_those_of_the_segmentor_in_pytorch(size):
    """The score of a pixel depends on its place in the window, so the windows must agree."""
    ramp = torch.linspace(0, 1, 33)

    def score(window: torch.Tensor) -> torch.Tensor:
        height, width = window.shape[2:]
        place = ramp[:height, None] * ramp[:width]
        return torch.cat([window * place, window.cos()], dim=1)

    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = mean_over_windows(score, pixels, 6, (32, 24), (20, 24))[0].numpy()
    metadata = make_metadata(window={"size": [32, 24], "stride": [20, 24]})
    found = scores_of_windows(
        lambda x: score(torch.from_numpy(x)[None])[0].numpy(), pixels[0].numpy(), metadata
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_labels_of_a_file_with_the_best_class_inside_are_enlarged():
    labels = np.array([[[0, 1], [2, 1]]], np.int32)
    metadata = make_metadata(resize=dict(mode="exact", size=[2, 2]))
    model = Segmentor(metadata, lambda inputs: {"labels": labels})
    found = model.predict(np.zeros((4, 6, 3), np.uint8))
    assert found.tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 1, 1, 1]] * 2


def test_padding_has_no_part_in_the_answer():
    def run(inputs):
        scores = np.zeros((1, 2, *inputs["input"].shape[2:]), np.float32)
        scores[:, 1, 32:] = scores[:, 1, :, 50:] = 9
        return {"scores": scores}

    metadata = make_metadata(resize={"pad_divisor": 64})
    assert not Segmentor(metadata, run).predict(np.zeros((45, 70, 3), np.uint8)).any()


def test_scores_that_are_not_finite_are_an_error():
    def run(inputs):
        return {"scores": np.full((1, 2, *inputs["input"].shape[2:]), np.nan, np.float32)}

    with pytest.raises(ValueError, match="expected finite scores, got NaN"):
        Segmentor(make_metadata(), run).predict(np.zeros((45, 70, 3), np.uint8))


def test_windows_need_scores_to_add_up():
    metadata = make_metadata(window={"size": [32, 32], "stride": [16, 16]})
    model = Segmentor(metadata, lambda inputs: {"labels": np.zeros((1, 32, 32), np.uint8)})
    with pytest.raises(ValueError, match="expected a model with scores, as its windows"):
        model.predict(np.zeros((32, 64, 3), np.uint8))


@pytest.mark.parametrize("shape", [(2, 32, 50), (1, 2, 32, 50, 1), (1, 0, 32, 50)])
def test_scores_of_another_shape_are_an_error(shape):
    model = Segmentor(make_metadata(), lambda inputs: {"scores": np.zeros(shape, np.float32)})
    with pytest.raises(ValueError, match="expected scores with 4 axes, got upernet with"):
        model.predict(np.zeros((45, 70, 3), np.uint8))


def test_a_file_without_the_tasks_outputs_is_an_error():
    model = Segmentor(make_metadata(), lambda inputs: {"depth": np.zeros((1, 1, 1))})
    with pytest.raises(ValueError, match="outputs scores or labels, got upernet with depth"):
        model.predict(np.zeros((45, 70, 3), np.uint8))
