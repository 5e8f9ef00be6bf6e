"""The occupancy head: the original's numbers, and its loss in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from internimage.integrations.openmmlab.driving import DrivingSample, OccupancyHead
from tests.autonomous_driving.forward_records import read_forward_record


@pytest.mark.parametrize("case", ["noprev", "prev"])
def test_the_logits_are_those_of_the_original(case):
    arrays, parameters = read_forward_record("bevformer_occ_forward")
    head = OccupancyHead(64, num_heights=4, conv_channels=8, hidden_channels=16).eval()
    names = {key.replace("predicter", "predictor"): value for key, value in parameters.items()}
    own = {key: value for key, value in names.items() if key.startswith(("decoder", "predictor"))}
    head.load_state_dict(own, strict=False)
    assert head.state_dict().keys() - own.keys() == {
        f"decoder.{layer}.bn.num_batches_tracked" for layer in (0, 1)
    }
    with torch.no_grad():
        logits = head(torch.from_numpy(arrays[f"out_{case}_bev"]))
    np.testing.assert_allclose(logits, arrays[f"out_{case}_logits"], atol=2e-4)


def _head(**options):
    torch.manual_seed(0)
    return OccupancyHead(8, num_heights=2, conv_channels=4, hidden_channels=4, **options).eval()


def _samples(seed=0):
    """Two frames of 4 x 3 x 2 voxels."""
    rng = np.random.default_rng(seed)
    samples = []
    for frame in range(2):
        sample = DrivingSample(metainfo={"token": f"frame{frame}"})
        labels = rng.choice([*range(18), 255], (4, 3, 2)).astype(np.uint8)
        sample.set_field(torch.from_numpy(labels), "gt_semantics")
        for name in ("mask_camera", "mask_lidar"):
            sample.set_field(torch.from_numpy(rng.integers(0, 2, (4, 3, 2)) == 1), name)
        samples.append(sample)
    return samples


@pytest.mark.parametrize("mask", ["none", "camera", "lidar"])
def test_the_loss_is_the_mean_over_the_voxels_that_count(mask):
    bev = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(1))
    samples, head = _samples(), _head(mask=mask, loss_weight=3.0)
    logits = head(bev).tolist()
    terms = []
    for sample, grid in zip(samples, logits, strict=True):
        for x, y, z in np.ndindex(4, 3, 2):
            label = int(sample.gt_semantics[x, y, z])
            counted = mask == "none" or bool(sample.get(f"mask_{mask}")[x, y, z])
            if label != 255 and counted:
                total = math.log(sum(math.exp(value) for value in grid[x][y][z]))
                terms.append(total - grid[x][y][z][label])
    loss = head.loss(bev, None, samples)["loss_occupancy"]
    assert loss.item() == pytest.approx(3 * sum(terms) / len(terms), rel=1e-5)


def test_a_frame_in_which_nothing_is_seen_teaches_nothing():
    samples, head = _samples(), _head(mask="camera")
    for sample in samples:
        sample.mask_camera = torch.zeros_like(sample.mask_camera)
    bev = torch.randn(2, 8, 3, 4, requires_grad=True)
    loss = head.loss(bev, None, samples)["loss_occupancy"]
    loss.backward()
    assert loss.item() == 0
    assert not bev.grad.any()


def test_the_first_axis_of_the_voxels_runs_along_the_columns_of_the_view():
    head = _head()
    bev = torch.zeros(1, 8, 9, 11)
    changed = bev.clone()
    changed[0, 0, 1, 8] = 1.0  # y = 1, x = 8
    difference = (head(changed) - head(bev)).abs().sum(-1)[0]
    seen = torch.nonzero(difference.sum(-1))
    # Two convolutions of 3 x 3 x 3 reach two cells.
    assert seen.min(0).values.tolist() == [6, 0]
    assert seen.max(0).values.tolist() == [10, 3]


def test_a_prediction_is_the_likeliest_class_of_each_voxel():
    bev = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(2))
    head = _head()
    predicted = head.predict(bev, None, _samples())
    expected = np.argmax(head(bev).detach().numpy(), -1)
    for sample, grid in zip(predicted, expected, strict=True):
        assert sample.pred_semantics.dtype == torch.uint8
        np.testing.assert_array_equal(sample.pred_semantics.numpy(), grid)


def test_samples_that_do_not_fit_the_head_are_an_error():
    head, bev = _head(mask="camera"), torch.zeros(2, 8, 3, 4)
    samples = _samples()
    del samples[1].mask_camera
    with pytest.raises(ValueError, match=r"expected mask_camera of shape \(4, 3, 2\) in frame fr"):
        head.loss(bev, None, samples)
    with pytest.raises(ValueError, match=r"gt_semantics of shape \(3, 4, 2\).*got \(4, 3, 2\)"):
        head.loss(bev.transpose(2, 3), None, _samples())


def test_settings_that_cannot_be_are_an_error():
    with pytest.raises(ValueError, match="expected in_channels to be a multiple of num_heights"):
        OccupancyHead(10, num_heights=4)
    with pytest.raises(ValueError, match="expected mask none, camera or lidar, got radar"):
        OccupancyHead(8, num_heights=4, mask="radar")
