"""What may be asked of an export, and what is told to whoever runs the file."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import pytest

from internimage.export import ExportOptions, ModelMetadata

FACTS: dict[str, Any] = {
    "task": "classification",
    "model": "small",
    "classes": ("ant", "bee"),
    "mean": (1.0, 2.0, 3.0),
    "std": (4.0, 5.0, 6.0),
    "resize": {"mode": "exact", "size": [8, 16], "filter": "bilinear"},
}


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"opset": 20}, ValueError, "got 20: opset 20 calls GridSample's bilinear mode linear"),
        ({"opset": 25}, ValueError, "got 25: opset 20 calls"),
        ({"opset": 16}, ValueError, "got 16: GridSample came .* and LayerNormalization with 17"),
        ({"opset": 7}, ValueError, r"opset in \(17, 18, 19\), got 7"),
        ({"opset": "18"}, TypeError, "opset = a whole number, got '18'"),
        ({"opset": True}, TypeError, "opset = a whole number, got True"),
        ({"image_size": (0, 7)}, ValueError, "image_size's height from 1 to 8192, got 0"),
        ({"image_size": (7, 9000)}, ValueError, "image_size's width from 1 to 8192, got 9000"),
        ({"image_size": 224}, TypeError, r"image_size = \(height, width\) or None, got 224"),
        ({"image_size": (1, 2, 3)}, TypeError, r"image_size = \(height, width\) or None"),
        ({"image_size": (8.0, 8)}, TypeError, "image_size's height = a whole number, got 8.0"),
        ({"dynamic": {"depth"}}, ValueError, r"axes of batch, height, width, got depth"),
        ({"dynamic": 3}, TypeError, "dynamic = axes of batch, height, width, or None, got 3"),
        ({"dynamic": "batch"}, ValueError, "axes of batch, height, width, got batch"),
        ({"precision": "bf16"}, ValueError, "precision in {fp32, fp16}, got 'bf16'"),
        ({"operator": "plugin"}, ValueError, "operator in {grid_sample, node}, got 'plugin'"),
        ({"boxes": "plugin"}, ValueError, "boxes in {operators, loops}, got 'plugin'"),
        ({"batch_size": 0}, ValueError, "batch_size >= 1, got 0"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(changes, kind, text):
    with pytest.raises(kind, match=f"ExportOptions: expected .*{text}"):
        ExportOptions(**changes)


def test_lists_are_taken_for_sizes_and_axes():
    options = ExportOptions(image_size=[64, 96], dynamic=["height"])  # type: ignore[arg-type]
    assert options == ExportOptions(image_size=(64, 96), dynamic=frozenset({"height"}))
    assert hash(options) == hash(ExportOptions((64, 96), frozenset({"height"})))


@pytest.mark.parametrize(
    ("changes", "keeps_ratio", "opened"),
    [
        ({}, True, {"height", "width"}),
        ({}, False, set()),
        ({"image_size": (64, 96)}, True, set()),
        ({"image_size": (64, 96), "dynamic": {"width"}}, True, {"width"}),
        ({"dynamic": {"batch"}}, True, {"batch"}),
        ({"dynamic": set()}, True, set()),
    ],
)
def test_sides_are_open_where_nothing_is_asked_and_images_keep_their_ratio(
    changes, keeps_ratio, opened
):
    options = ExportOptions(**changes)
    assert options.opened == frozenset(changes.get("dynamic", ()))
    assert options.decided(keeps_ratio=keeps_ratio).opened == opened


def test_metadata_is_json_with_all_that_the_caller_and_the_export_know():
    text = ModelMetadata(**FACTS).to_json(batch=None, input_size=[8, 16])
    read = json.loads(text)
    assert read["classes"] == ["ant", "bee"]
    assert read["format"] == 1
    assert (read["batch"], read["input_size"], read["palette"]) == (None, [8, 16], None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"task": "painting"}, "task in {classification, detection, segmentation}"),
        ({"mean": (1.0,)}, "mean = three numbers"),
        ({"resize": {"mode": "exact", "size": [8, 8]}}, "resize with a mode and its fields of"),
        ({"resize": {"mode": "zoom"}}, "resize with a mode and its fields of"),
        ({"palette": [[0, 0, 0]]}, "a colour for each of 2 classes, got 1"),
        ({"std": (4.0, 0.0, 6.0)}, "what `internimage run` can read, got std = 0.0"),
        (
            {"mean": (math.nan, 0.0, 0.0)},
            "what `internimage run` can read, got .* not JSON compliant",
        ),
        (
            {"resize": {"mode": "exact", "size": [8, 8], "filter": "lanczos9"}},
            "what `internimage run` can read, got resize.filter = 'lanczos9'",
        ),
        (
            {"resize": {**FACTS["resize"], "multiple_of": [32, 64]}},
            r"what `internimage run` can read, got resize.multiple_of = \[32, 64\]",
        ),
        (
            {"window": {"size": [8, 8], "stride": [9, 8]}},
            "what `internimage run` can read, got .* which leaves pixels out",
        ),
        ({"score_threshold": 1.5}, "what `internimage run` can read, got score_threshold = 1.5"),
        ({"palette": [[0, 0, 256]] * 2}, "what `internimage run` can read, got palette = 256"),
    ],
    ids=str,
)
def test_metadata_that_no_runner_could_use_is_refused(changes, text):
    with pytest.raises(ValueError, match=f"ModelMetadata: expected {text}"):
        ModelMetadata(**{**FACTS, **changes})


def test_facts_without_a_number_are_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        ModelMetadata(**FACTS).to_json(batch=math.nan)


def test_boxes_where_there_are_none_are_said_to_change_nothing():
    with pytest.warns(UserWarning, match="f: boxes = loops changes nothing: a tree has neither"):
        ExportOptions(boxes="loops").warn_of_boxes("f", "a tree")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ExportOptions().warn_of_boxes("f", "a tree")
