"""Checkpoints against a segmentor: other classes, another head, another task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from torch import Tensor, nn

import internimage.integrations.openmmlab.segmentation  # noqa: F401  (registers the models)
from internimage.integrations.openmmlab.scripts import safe_loading
from internimage.integrations.openmmlab.scripts.checkpoints import CheckpointCheckHook, Purpose
from internimage.integrations.openmmlab.scripts.released_models import RELEASED_SEGMENTORS

WIDTHS = [16, 32, 64, 128]
UPERNET = {"type": "UPerHead", "in_channels": WIDTHS, "in_index": [0, 1, 2, 3], "channels": 8}
SEGFORMER = {"type": "SegformerHead", "in_channels": WIDTHS, "in_index": [0, 1, 2, 3]}
SEGFORMER |= {"channels": 16}
FCN = {"type": "FCNHead", "in_channels": 64, "in_index": 2, "channels": 8, "num_convs": 1}


def build(head: dict[str, Any], num_classes: int = 3, arch: str = "test_t") -> nn.Module:
    model = {
        "type": "InternImageSegmentor",
        "backbone": {"type": "InternImage", "arch": arch},
        "decode_head": head | {"num_classes": num_classes},
    }
    if head["type"] == "UPerHead":
        model["auxiliary_head"] = FCN | {"num_classes": num_classes}
    return MODELS.build(ConfigDict(model))


@pytest.fixture(scope="module")
def upernet() -> nn.Module:
    return build(UPERNET)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}


def check(purpose: Purpose, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the hook leaves of a checkpoint for a model."""
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={})))
    runner: Any = SimpleNamespace(model=model, _test_loop=loop, _train_loop=loop)
    checkpoint: dict[str, Any] = {"state_dict": state}
    CheckpointCheckHook(purpose, "some.pth").after_load_checkpoint(runner, checkpoint)
    return checkpoint["state_dict"]


def test_a_start_may_have_other_classes(upernet: nn.Module, recwarn: pytest.WarningsRecorder):
    state = weights(build(UPERNET, num_classes=150))
    recwarn.clear()  # what mmseg says of its loss
    taken = check("load_from", upernet, dict(state))
    classes = {
        f"{head}.conv_seg.{kind}"
        for head in ("decode_head", "auxiliary_head")
        for kind in ("weight", "bias")
    }
    own = upernet.state_dict()
    assert set(taken) == set(own)
    for key, value in taken.items():
        assert torch.equal(value, own[key] if key in classes else state[key])
    assert not recwarn.list


def test_the_backbone_of_a_segmentor_with_another_head_is_a_start(upernet: nn.Module):
    """As the author's UperNets for Cityscapes start; a bias that would fit is of other features."""
    state = weights(build(SEGFORMER))
    assert state["decode_head.conv_seg.bias"].shape == (3,)
    with pytest.warns(UserWarning, match="of a segmentor with UPerHead, got a segmentor with Segf"):
        taken = check("load_from", upernet, dict(state))
    own = upernet.state_dict()
    for key, value in taken.items():
        assert torch.equal(value, state[key] if key.startswith("backbone.") else own[key])


BARE = {key.removeprefix("backbone."): value for key, value in weights(build(UPERNET)).items()}
BARE = {key: value for key, value in BARE.items() if not key.startswith(("decode_", "auxiliary_"))}
BACKBONE = {f"backbone.{key}": value for key, value in BARE.items()}

WRONG = {
    "a detector": (
        {**BACKBONE, "rpn_head.rpn_cls.weight": torch.zeros(3, 2), "roi_head.x": torch.zeros(1)},
        "of a segmentor with UPerHead, got a detector in some.pth, of which only the backbone fits",
    ),
    "a classifier": ({**BARE, "head.weight": torch.zeros(2, 2)}, "got a classifier in some.pth"),
    "a backbone": (BARE, "got a backbone in some.pth: its names lack the prefix backbone."),
    "another size": (
        weights(build(UPERNET, arch="test_h")),
        "checkpoint of this model but for its classes, got some.pth with",
    ),
    "nothing": ({"x": torch.zeros(1)}, "of which nothing fits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_start_is_refused_in_words(name: str, upernet: nn.Module):
    state, message = WRONG[name]
    with pytest.raises(ValueError, match="expected a checkpoint of") as caught:
        check("load_from", upernet, dict(state))
    assert message in str(caught.value)


OTHER_HEADS = {
    "SegformerHead": weights(build(SEGFORMER)),
    "Mask2FormerHead": {
        **BACKBONE,
        "decode_head.transformer_decoder.post_norm.bias": torch.zeros(4),
        "decode_head.query_feat.weight": torch.zeros(5, 4),
    },
}


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_an_evaluation_wants_the_head_of_the_model(name: str, upernet: nn.Module):
    with pytest.raises(ValueError, match="expected a checkpoint of") as caught:
        check("test", upernet, dict(OTHER_HEADS[name]))
    assert f"a segmentor with UPerHead, got a segmentor with {name} in some.pth" in str(
        caught.value
    )


@pytest.mark.parametrize("purpose", ["test", "resume"])
def test_an_evaluation_wants_the_classes_of_the_model(purpose: Purpose, upernet: nn.Module):
    state = weights(build(UPERNET, num_classes=150))
    with pytest.raises(ValueError, match=r"weights for the classes of the config.*conv_seg.weight"):
        check(purpose, upernet, state)


def test_weights_that_are_no_numbers_are_refused(upernet: nn.Module):
    state = weights(upernet)
    state["decode_head.conv_seg.bias"][1] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in some.pth: decode_head.conv_seg.bias"):
        check("test", upernet, state)


def test_released_segmentors_are_found_by_name(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        safe_loading, "download_file", lambda *where: asked.append(where) or "x.pth"
    )
    for name in RELEASED_SEGMENTORS:
        safe_loading.find_file(name)
    assert asked == [("OpenGVLab/InternImage", f"{name}.pth") for name in RELEASED_SEGMENTORS]
