"""Sizes of open inputs: from the command line, from the model's metadata, and what does not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from internimage.runtime import Metadata, parse_metadata
from profiles import Profile, choose_profiles, read_profile, sizes_of_tests

CROP = {"mode": "crop", "shorter_side": 256, "size": [224, 224], "filter": "bicubic"}
KEEP_RATIO = {
    "mode": "keep_ratio", "scale": [1333, 800], "filter": "cv2_bilinear", "pad_divisor": 32,
    "pad_to": None, "pad_value": 0,
}  # fmt: skip
EXACT = {"mode": "exact", "size": [512, 1024], "filter": "cv2_bilinear"}
WINDOW = {"size": [640, 512], "stride": [426, 341]}
OPEN_IMAGE = {"input": (-1, 3, -1, -1)}
DETECTOR = {"input": (-1, 3, -1, -1), "image_size": (-1, 2)}


def metadata_of(resize: dict[str, Any], **more: Any) -> Metadata:
    fields = {
        "format": 1, "task": "classification", "model": "m", "precision": "fp32",
        "operator": "grid_sample", "input_size": [None, None], "batch": None, "classes": [],
        "palette": None, "mean": [0, 0, 0], "std": [1, 1, 1], "resize": resize, "window": None,
        "score_threshold": None, "mask_threshold": None, "reduce_zero_label": None,
    }  # fmt: skip
    return parse_metadata(json.dumps(fields | more), origin="here")


def chosen(inputs: dict[str, tuple[int, ...]], metadata: Metadata | None, *given: str) -> list[str]:
    return [str(p) for p in choose_profiles([read_profile(g) for g in given], inputs, metadata)]


def test_a_profile_is_read_as_it_is_written():
    text = "input=1x3x320x320:1x3x800x1344:4x3x1344x1344"
    profile = read_profile(text)
    assert str(profile) == text
    assert profile == Profile("input", (1, 3, 320, 320), (1, 3, 800, 1344), (4, 3, 1344, 1344))
    assert str(read_profile("a=b=1x2")) == "a=b=1x2:1x2:1x2"


@pytest.mark.parametrize(
    "text", ["", "input", "input=", "=1x3", "input=1x3:1x3", "input=1x3:1x3:1x3:1x3", "input=1xa"]
)
def test_a_text_that_is_no_profile_is_refused(text: str):
    with pytest.raises(ValueError, match="expected --profile NAME=MIN:OPT:MAX"):
        read_profile(text)


@pytest.mark.parametrize("text", ["x=2:1:3", "x=1:3:2", "x=0:1:1", "x=1x1:1:1"])
def test_sizes_out_of_order_are_refused(text: str):
    with pytest.raises(ValueError, match="expected (1 <= smallest|three sizes)"):
        read_profile(text)


@pytest.mark.parametrize(
    ("resize", "more", "sizes"),
    [
        (CROP, {}, [(224, 224)]),
        (EXACT, {}, [(512, 1024)]),
        (KEEP_RATIO, {}, [(800, 1344), (1344, 800)]),
        (KEEP_RATIO | {"pad_to": [1024, 1024]}, {}, [(1024, 1024)]),
        (KEEP_RATIO | {"scale": None}, {}, []),
        (KEEP_RATIO | {"pad_to": [None, 1344]}, {}, [(800, 1344), (1344, 1344)]),
        (KEEP_RATIO | {"scale": None, "pad_to": [512, 640]}, {}, [(512, 640)]),
        (EXACT | {"size": [800, 1333], "pad_divisor": 32}, {}, [(800, 1344)]),
        (KEEP_RATIO, {"window": WINDOW}, [(640, 512)]),
    ],
)
def test_the_test_size_is_the_input_that_the_models_own_test_has(
    resize: dict[str, Any], more: dict[str, Any], sizes: list[tuple[int, int]]
):
    assert sizes_of_tests(metadata_of(resize, **more)) == sizes


def test_a_model_without_open_axes_needs_no_profile():
    assert chosen({"input": (1, 3, 224, 224)}, metadata_of(CROP)) == []


def test_by_default_an_engine_serves_the_test_size():
    assert chosen(OPEN_IMAGE, metadata_of(CROP)) == ["input=1x3x224x224:1x3x224x224:8x3x224x224"]
    assert chosen({"input": (2, 3, -1, -1)}, metadata_of(EXACT)) == [
        "input=2x3x512x1024:2x3x512x1024:2x3x512x1024"
    ]
    assert chosen({"input": (-1, 3, 64, 96)}, None) == ["input=1x3x64x96:1x3x64x96:8x3x64x96"]


def test_by_default_a_detectors_engine_serves_small_images_and_both_orientations():
    assert chosen(DETECTOR, metadata_of(KEEP_RATIO)) == [
        "input=1x3x320x320:1x3x800x1344:8x3x1344x1344",
        "image_size=1x2:1x2:8x2",
    ]


def test_the_other_inputs_follow_the_images_batch():
    image = "input=2x3x800x1344:4x3x800x1344:6x3x1344x1344"
    found = chosen(DETECTOR, metadata_of(KEEP_RATIO), image)
    assert found == [image, "image_size=2x2:4x2:6x2"]


def test_a_profile_may_serve_one_orientation():
    landscape = "input=1x3x800x1344"
    (found, _) = chosen(DETECTOR, metadata_of(KEEP_RATIO), landscape)
    assert found == "input=1x3x800x1344:1x3x800x1344:1x3x800x1344"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("input=1x3x32x32:1x3x64x64:1x3x96x96", "includes the model's test size, 224 x 224"),
        ("input=1x3x256x224", "includes the model's test size"),
        ("input=1x4x224x224", r"expected --profile input= sizes \?x3x\?x\?"),
        ("input=1x3x224", r"expected --profile input= sizes"),
        ("image=1x3x224x224", r"expected --profile of an input \(input\), got 'image'"),
    ],
)
def test_a_profile_that_does_not_fit_the_model_is_refused(given: str, words: str):
    with pytest.raises(ValueError, match=words):
        chosen(OPEN_IMAGE, metadata_of(CROP), given)


def test_a_profile_of_a_fixed_input_must_be_its_size():
    fixed = {"input": (1, 3, 224, 224)}
    assert chosen(fixed, metadata_of(CROP), "input=1x3x224x224") == []
    with pytest.raises(ValueError, match="expected --profile input= sizes 1x3x224x224"):
        chosen(fixed, metadata_of(CROP), "input=1x3x224x224:1x3x224x224:2x3x224x224")


def test_two_profiles_of_one_input_are_refused():
    with pytest.raises(ValueError, match="expected one --profile an input"):
        chosen(OPEN_IMAGE, metadata_of(CROP), "input=1x3x224x224", "input=2x3x224x224")


@pytest.mark.parametrize(
    ("inputs", "metadata"),
    [
        (OPEN_IMAGE, None),
        (OPEN_IMAGE, metadata_of(KEEP_RATIO | {"scale": None})),
        ({"input": (1, 3, 8, 8), "other": (-1, -1)}, None),
    ],
)
def test_an_open_input_of_unknown_size_needs_a_profile(
    inputs: dict[str, tuple[int, ...]], metadata: Metadata | None
):
    with pytest.raises(ValueError, match="since the input has open axes"):
        chosen(inputs, metadata)
