"""Class weights that fade: what they are at each step, and where there are none."""

from types import SimpleNamespace

import pytest
from mmseg.models.losses import CrossEntropyLoss
from torch import nn

from internimage.integrations.openmmlab.segmentation import FadeClassWeightsHook


def run_with(*weights: list[float] | None, auxiliary: list[float] | None = None) -> SimpleNamespace:
    """A run whose head has a loss of each of these weights."""
    model = nn.Module()
    model.decode_head = nn.ModuleList(CrossEntropyLoss(class_weight=each) for each in weights)
    model.auxiliary_head = CrossEntropyLoss(class_weight=auxiliary)
    return SimpleNamespace(model=model, iter=0)


def weights_at(hook: FadeClassWeightsHook, run: SimpleNamespace, step: int) -> list:
    run.iter = step
    hook.before_train_iter(run, 0)
    return [loss.class_weight for loss in run.model.decode_head]


def test_the_weights_go_to_one_along_a_line():
    run = run_with([0.1, 1.0, 3.0], None)
    hook = FadeClassWeightsHook(10, 20)
    hook.before_train(run)
    assert weights_at(hook, run, 0) == [pytest.approx([0.1, 1.0, 3.0]), None]
    assert weights_at(hook, run, 10) == [pytest.approx([0.1, 1.0, 3.0]), None]
    assert weights_at(hook, run, 15) == [pytest.approx([0.55, 1.0, 2.0]), None]
    assert weights_at(hook, run, 99) == [pytest.approx([1.0, 1.0, 1.0]), None]
    # A run that goes on in the middle, with losses that are new.
    assert weights_at(hook, run, 15) == [pytest.approx([0.55, 1.0, 2.0]), None]
    hook.after_train(run)
    assert run.model.decode_head[0].class_weight == [0.1, 1.0, 3.0]


def test_the_losses_of_other_parts_keep_theirs():
    run = run_with([0.5, 1.0], auxiliary=[0.2, 1.0])
    hook = FadeClassWeightsHook(0, 1)
    hook.before_train(run)
    assert weights_at(hook, run, 5) == [[1.0, 1.0]]
    assert run.model.auxiliary_head.class_weight == [0.2, 1.0]
    other = FadeClassWeightsHook(0, 1, part="auxiliary_head")
    other.before_train(run)
    weights_at(other, run, 5)
    assert run.model.auxiliary_head.class_weight == [1.0, 1.0]


@pytest.mark.parametrize("part", ["decode_head", "nowhere"])
def test_without_weights_it_warns_that_it_has_no_effect(part):
    hook = FadeClassWeightsHook(0, 1, part=part)
    with pytest.warns(UserWarning, match=f"no loss of {part} has a class_weight"):
        hook.before_train(run_with(None))


@pytest.mark.parametrize(("begin", "end"), [(-1, 5), (5, 5), (9, 5)])
def test_steps_in_the_wrong_order_are_told(begin, end):
    with pytest.raises(ValueError, match=f"got begin = {begin}, end = {end}"):
        FadeClassWeightsHook(begin, end)
