"""Images as the network takes them: order of channels, padding, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.integrations.openmmlab.driving.preprocessor import BEVDataPreprocessor, GridMask
from internimage.integrations.openmmlab.driving.sample import DrivingSample


def batch(*shapes: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "inputs": [torch.randint(1, 256, shape, generator=generator).to(dtype) for shape in shapes],
        "data_samples": [DrivingSample(metainfo={"image_shape": shape[-2:]}) for shape in shapes],
    }


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_are_normalised_in_rgb_and_then_padded_with_zeros(dtype: torch.dtype) -> None:
    data = batch((2, 3, 3, 20, 40), (2, 3, 3, 20, 40), dtype=dtype)
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    result = BEVDataPreprocessor(mean, std)(data)
    images = result["inputs"]
    assert images.shape == (2, 2, 3, 3, 32, 64) and images.dtype == torch.float32
    for channel in range(3):
        raw = data["inputs"][1][:, :, 2 - channel].float()
        expected = (raw - mean[channel]) / std[channel]
        torch.testing.assert_close(images[1, :, :, channel, :20, :40], expected)
    assert not images[..., 20:, :].any() and not images[..., 40:].any()
    for sample in result["data_samples"]:
        assert sample.metainfo["image_shape"] == (32, 64)
        assert sample.metainfo["unpadded_shape"] == (20, 40)


@pytest.mark.parametrize(
    "shapes",
    [[(1, 3, 3, 20, 40), (1, 3, 3, 24, 40)], [(3, 3, 20, 40)], [(1, 3, 4, 20, 40)]],
    ids=["several", "no frames", "four channels"],
)
def test_inputs_of_other_shapes_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="inputs of one shape"):
        BEVDataPreprocessor()(batch(*shapes))


def test_only_the_last_frame_of_a_training_batch_is_masked() -> None:
    preprocessor = BEVDataPreprocessor((0, 0, 0), (1, 1, 1), grid_mask={"prob": 1.0})
    data = batch((3, 2, 3, 32, 64))
    torch.manual_seed(0)
    tested = preprocessor(data, training=False)["inputs"]
    trained = preprocessor(data, training=True)["inputs"]
    assert torch.equal(tested[:, :-1], trained[:, :-1])
    cut = trained[:, -1] == 0
    assert not (tested == 0).any() and cut.any() and not cut.all()
    assert torch.equal(cut, cut[:1, :1, :1].expand_as(cut))  # the same for all images


@pytest.mark.parametrize("seed", range(8))
def test_a_grid_mask_cuts_squares_at_one_period(seed: int) -> None:
    torch.manual_seed(seed)
    kept = GridMask(prob=1.0, ratio=0.5)(torch.ones(60, 100)).bool()
    cut_rows, cut_columns = (~kept).any(dim=1), (~kept).any(dim=0)
    assert torch.equal(~kept, cut_rows[:, None] & cut_columns)
    for line in (cut_rows, cut_columns):
        starts, lengths = runs(line)
        inner = [
            length
            for start, length in zip(starts, lengths, strict=True)
            if start > 0 and start + length < len(line)
        ]
        assert len(set(inner)) <= 1
        steps = {b - a for a, b in zip(starts[1:], starts[2:], strict=False)}
        # half of a period is cut, rounded
        assert all(abs(2 * length - step) <= 1 for step in steps for length in inner)
        assert len(steps) <= 1


def runs(line: Tensor) -> tuple[list[int], list[int]]:
    """Return where the runs of True begin, and how long they are."""
    starts: list[int] = []
    lengths: list[int] = []
    for i, value in enumerate(line.tolist()):
        if value and (i == 0 or not line[i - 1]):
            starts.append(i)
            lengths.append(0)
        if value:
            lengths[-1] += 1
    return starts, lengths


def test_a_grid_mask_of_probability_0_changes_nothing() -> None:
    images = torch.ones(2, 3, 32, 64)
    assert torch.equal(GridMask(prob=0.0)(images), images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"std": (1, 1, 0)}, "3 positive deviations"),
        ({"mean": (1, 1)}, "3 means"),
        ({"pad_size_divisor": 0}, "a divisor >= 1"),
        ({"grid_mask": {"ratio": 1.0}}, "0 < ratio < 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BEVDataPreprocessor(**settings)


@pytest.mark.parametrize(
    ("period", "ratio", "kept"),
    [(5, 0.5, 3), (6, 0.5, 3), (7, 0.5, 4), (9, 0.5, 5), (2, 0.9, 1), (10, 0.25, 3)],
)
def test_half_a_pixel_of_a_grid_mask_is_kept(
    monkeypatch: pytest.MonkeyPatch, period: int, ratio: float, kept: int
) -> None:
    drawn = iter([torch.tensor(period), torch.tensor([0, 0])])  # the period, and no offset
    monkeypatch.setattr(torch, "randint", lambda *_: next(drawn))
    mask = GridMask(prob=1.0, ratio=ratio)(torch.ones(20, 20))
    assert mask[:period].all(dim=1).sum() == kept
