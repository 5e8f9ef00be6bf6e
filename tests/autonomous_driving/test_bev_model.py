"""The model: queues of training and frames of a test, whatever the batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.model import BEVModel
from internimage.integrations.openmmlab.driving.sample import DrivingSample
from tests.autonomous_driving.small_views import GRID, IMAGE_SHAPE, cameras, drive, small_view


class TwoLevels(nn.Module):
    """Images to maps with 1/4 and 1/8 of their pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 4, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return (B N, 16, h, w) twice."""
        fine = self.dropout(self.conv(images))
        return [fine, nn.functional.avg_pool2d(fine, 2)]


class ViewItself(nn.Module):
    """A head whose prediction is the view."""

    def __init__(self, covered_range: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.covered_range = covered_range

    def forward(self, bev: Tensor, features: Any) -> Tensor:
        """Return the view."""
        return bev

    def loss(self, bev: Tensor, features: Any, samples: Any) -> dict[str, Tensor]:
        """Return a number of the view."""
        return {"loss": bev.square().mean()}

    def predict(self, bev: Tensor, features: Any, samples: Any) -> list[Tensor]:
        """Return the views one by one."""
        return list(bev)


@pytest.fixture(autouse=True)
def registered_parts() -> Iterator[None]:
    parts = {"TwoLevels": TwoLevels, "Same": nn.Identity, "ViewItself": ViewItself}
    for name, part in parts.items():
        MODELS.register_module(name=name, module=part)
    try:
        yield
    finally:
        for name in parts:
            MODELS.module_dict.pop(name)


def build(**head: Any) -> BEVModel:
    view = {"type": "BEVFormerView", "grid": GRID, "embed_dims": 16, "num_cameras": 3}
    view |= {"num_levels": 2, "num_layers": 1, "num_heads": 2}
    return BEVModel({"type": "TwoLevels"}, {"type": "Same"}, view, {"type": "ViewItself", **head})


@pytest.fixture
def model() -> BEVModel:
    torch.manual_seed(0)
    built = build()
    built.view = small_view(num_layers=1)
    return built.eval()


def frames(scene: str, num: int, *, seed: int) -> tuple[Tensor, list[DrivingSample]]:
    """Return the frames of a drive (T, 3, 3, H, W) and a sample for each, with T = 1."""
    poses = drive(num, seed=seed)
    images = torch.randn(num, 3, 3, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(seed))
    samples = []
    for t in range(num):
        meta = {
            "token": f"{scene}{t}",
            "scene": scene,
            "prev": f"{scene}{t - 1}" if t else "",
            "image_shape": IMAGE_SHAPE,
            "ego2img": cameras(3, seed=seed)[None],
            "ego2global": poses[t][None],
            "has_prev": np.array([False]),
        }
        samples.append(DrivingSample(metainfo=meta))
    return images, samples


def queue_of(samples: list[DrivingSample], has_prev: list[bool]) -> DrivingSample:
    """Return the last sample with the frames before it as its queue."""
    meta = dict(samples[-1].metainfo)
    for name in ("ego2img", "ego2global"):
        meta[name] = np.concatenate([sample.metainfo[name] for sample in samples])
    meta["has_prev"] = np.array(has_prev)
    return DrivingSample(metainfo=meta)


@torch.no_grad()
def test_the_size_of_batches_changes_nothing(model: BEVModel) -> None:
    first, second = frames("a", 3, seed=0), frames("b", 2, seed=1)
    images = torch.cat([first[0], second[0]])[:, None]
    samples = [*first[1], *second[1]]
    one_by_one = [model(images[i : i + 1], samples[i : i + 1], mode="predict")[0] for i in range(5)]
    for size in (2, 5):
        model.forget()
        views: list[Tensor] = []
        for start in range(0, 5, size):
            chosen = slice(start, start + size)
            views += model(images[chosen], samples[chosen], mode="predict")
        torch.testing.assert_close(views, one_by_one, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_queue_gives_what_its_frames_give_one_after_the_other(model: BEVModel) -> None:
    images, samples = frames("a", 4, seed=0)
    expected = [model(images[i][None, None], [samples[i]], mode="predict")[0] for i in range(4)]
    queue = queue_of(samples, [False, True, True, True])
    torch.testing.assert_close(model(images[None], [queue], mode="predict")[0], expected[-1])


@torch.no_grad()
def test_frames_that_a_queue_repeats_at_the_start_of_a_scene_are_not_history(
    model: BEVModel,
) -> None:
    images, samples = frames("a", 2, seed=0)
    repeated = [0, 0, 0, 1]
    queue = queue_of([samples[i] for i in repeated], [False, False, False, True])
    expected = [model(images[i][None, None], [samples[i]], mode="predict")[0] for i in range(2)]
    torch.testing.assert_close(
        model(images[None, repeated], [queue], mode="predict")[0], expected[1]
    )
    torch.testing.assert_close(  # beside a sample of a batch with all of its history
        model(
            torch.stack([images[repeated], images[repeated].flip(0)]),
            [queue, queue_of([samples[i] for i in (1, 0, 1, 0)], [False, True, True, True])],
            mode="predict",
        )[0],
        expected[1],
        rtol=1e-4,
        atol=1e-5,
    )


@torch.no_grad()
def test_a_new_scene_starts_without_history(model: BEVModel) -> None:
    images, samples = frames("a", 1, seed=0)
    others, theirs = frames("b", 1, seed=1)
    alone = model(images[None], samples, mode="predict")[0]
    model(others[None], theirs, mode="predict")
    torch.testing.assert_close(model(images[None], samples, mode="predict")[0], alone)


@torch.no_grad()
def test_a_frame_whose_predecessor_was_not_seen_is_told_of(model: BEVModel) -> None:
    images, samples = frames("a", 3, seed=0)
    model(images[:1, None], samples[:1], mode="predict")
    with pytest.warns(UserWarning, match="a2 starts without history.* a1, was not the last"):
        model(images[2:, None], samples[2:], mode="predict")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        model(images[1:2, None], samples[1:2], mode="predict")


@torch.no_grad()
def test_training_forgets_the_kept_frame(model: BEVModel) -> None:
    images, samples = frames("a", 2, seed=0)
    model(images[:1, None], samples[:1], mode="predict")
    model.train()
    model.eval()
    with pytest.warns(UserWarning, match="a1 starts without history"):
        model(images[1:, None], samples[1:], mode="predict")


def test_history_is_encoded_as_in_a_test_and_has_no_gradient(model: BEVModel) -> None:
    images, samples = frames("a", 3, seed=0)
    queue = queue_of(samples, [False, True, True])
    model.train()
    model.view.eval()  # as a hook that freezes a part would leave it
    inputs = images[None].requires_grad_()
    seen: list[bool] = []
    model.backbone.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    model(inputs, [queue], mode="loss")["loss"].backward()
    assert seen == [False, False, True]
    assert not inputs.grad[:, :-1].any() and inputs.grad[:, -1].any()
    assert model.backbone.training and not model.view.training


def test_raw_outputs_need_no_history(model: BEVModel) -> None:
    images, samples = frames("a", 2, seed=0)
    with torch.no_grad():
        expected = model(images[:1, None], samples[:1], mode="predict")[0]
        torch.testing.assert_close(model(images[:1, None], samples[:1])[0], expected)


def test_an_unknown_mode_is_refused(model: BEVModel) -> None:
    images, samples = frames("a", 1, seed=0)
    with pytest.raises(ValueError, match="mode loss, predict or tensor, got 'train'"):
        model(images[None], samples, mode="train")  # type: ignore[arg-type]


def test_a_head_for_another_range_than_its_views_is_refused() -> None:
    build(covered_range=GRID["range"])
    build(covered_range=(-8.0, -6.0, 8.0, 6.0))  # no heights
    with pytest.raises(ValueError, match=r"the range of its view, \(-8.0, .* got \(-9.0, "):
        build(covered_range=(-9.0, *GRID["range"][1:]))
    with pytest.raises(ValueError, match="the range of its view"):
        build(covered_range=(-8.0, -6.0, 8.0, 7.0))


def test_training_without_the_history_of_a_test_is_warned_of_once(model: BEVModel) -> None:
    images, samples = frames("a", 1, seed=0)
    with pytest.warns(UserWarning) as caught:
        for _ in range(2):
            model.train()(images[None], samples, mode="loss")
    (warning,) = caught
    assert "uses_history is True and the data set's queue_length 1" in str(warning.message)


def test_a_queue_that_the_view_does_not_look_at_is_warned_of_once(model: BEVModel) -> None:
    model.view = small_view(num_layers=1, uses_history=False)
    images, samples = frames("a", 2, seed=0)
    queue = queue_of(samples, [False, True])
    with pytest.warns(UserWarning) as caught:
        for _ in range(2):
            model.train()(images[None], [queue], mode="loss")
    (warning,) = caught
    assert "queue_length = 2 of the data set has no effect" in str(warning.message)


@pytest.mark.parametrize("uses_history", [False, True])
def test_a_queue_as_the_view_takes_it_is_not_warned_of(model: BEVModel, uses_history: bool) -> None:
    model.view = small_view(num_layers=1, uses_history=uses_history)
    images, samples = frames("a", 2, seed=0)
    queue = queue_of(samples, [False, True]) if uses_history else samples[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train()(images[None] if uses_history else images[None, 1:], [queue], mode="loss")
