"""Metadata are read as the export writes them; others are one error that says which."""

from __future__ import annotations

import json
from typing import Any

import pytest

from internimage.export import ModelMetadata
from internimage.runtime import parse_metadata
from tests.internimage.runtime.runner_metadata import RESIZE, make_metadata, metadata_text

EXACT = {"mode": "exact", "size": [8, 8], "filter": "bilinear"}
CROP = EXACT | {"mode": "crop", "shorter_side": 8}


def test_what_the_export_writes_is_read_back():
    written = ModelMetadata(
        task="detection",
        model="mask_rcnn",
        classes=("ant", "bee"),
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        resize=RESIZE,
        palette=((1, 2, 3), (4, 5, 6)),
        score_threshold=0.05,
        mask_threshold=0.5,
    )
    facts: dict[str, Any] = dict(version="0.1.0", precision="fp16", operator="node", batch=None)
    read = parse_metadata(written.to_json(**facts, input_size=[None, 64]), origin="x")
    for name in ("task", "model", "classes", "mean", "std", "palette", "score_threshold"):
        assert getattr(read, name) == getattr(written, name), name
    assert (read.precision, read.operator, read.batch) == ("fp16", "node", None)
    assert read.input_size == (None, 64)
    assert dict(read.resize) == RESIZE | {"multiple_of": None, "scale": (64, 32)}
    assert [read.name_of(label) for label in (0, 1, 2)] == ["ant", "bee", None]


def test_fields_of_a_later_version_are_passed_over():
    assert parse_metadata(metadata_text(colour="red"), origin="x") == make_metadata()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (metadata_text(format=2), "format 2, where 1 is the newest known here"),
        (metadata_text(format="new"), "format = 'new'"),
        (metadata_text(format=-3), "format = -3"),
        (metadata_text(format=True), "format = True"),
        (metadata_text(task="depth"), "task = 'depth'"),
        (metadata_text(model=3), "model = 3"),
        (metadata_text(classes="abc"), "classes = 'abc'"),
        (metadata_text(classes=["a", 2]), "classes = 2"),
        (metadata_text(palette=[[0, 0, 999]]), "palette = 999"),
        (metadata_text(palette=[[0, -1, 0]]), "palette = -1"),
        (metadata_text(batch=0), "batch = 0"),
        (metadata_text(mask_threshold="x"), "mask_threshold = 'x'"),
        (metadata_text(score_threshold=1.5), "score_threshold = 1.5"),
        (metadata_text(input_size=["a", "b"]), "input_size = 'a'"),
        (metadata_text(input_size=3), "input_size = 3"),
        (metadata_text(mean=[1.0]), "mean = [1.0]"),
        (metadata_text(mean=[1.0, 2.0, "x"]), "mean = 'x'"),
        (metadata_text(mean=[1.0, 2.0, float("inf")]), "mean = inf"),
        (metadata_text(std=[1.0, 0.0, 1.0]), "std = 0.0"),
        (metadata_text(resize="exact"), "resize = 'exact'"),
        (metadata_text(resize={"mode": "fold"}), "resize = "),
        (metadata_text(resize={"mode": "exact", "filter": "cv2_bilinear"}), "resize = "),
        (metadata_text(resize=dict(EXACT, size=["a", 3])), "resize.size = 'a'"),
        (metadata_text(resize=dict(EXACT, size=None)), "resize.size = None"),
        (metadata_text(resize=dict(EXACT, filter="sharp")), "resize.filter = 'sharp'"),
        (metadata_text(resize=dict(CROP, shorter_side="x")), "resize.shorter_side = 'x'"),
        (metadata_text(resize=dict(CROP, filter="cv2_bilinear")), "resize.filter"),
        (metadata_text(resize=RESIZE | {"multiple_of": "q"}), "resize.multiple_of = 'q'"),
        (metadata_text(resize=RESIZE | {"scale": [0, 5]}), "resize.scale = 0"),
        (metadata_text(resize=RESIZE | {"pad_to": [5]}), "resize.pad_to = [5]"),
        (metadata_text(resize=RESIZE | {"pad_divisor": 10**9}), "pad_divisor = 1000000000"),
        (metadata_text(window={"x": 1}), "window = {'x': 1}"),
        (metadata_text(window=[1]), "window = [1]"),
        (metadata_text(window={"size": [8, 8], "stride": [8, 0]}), "window.stride = 0"),
        (metadata_text(window={"size": [8, 8], "stride": [8, 9]}), "which leaves pixels out"),
        (json.dumps({"format": 1}), "no 'task'"),
        ("[1, 2]", "list indices"),
        ("{", "Expecting"),
    ],
)
def test_other_metadata_are_one_error_that_names_the_file_and_the_reason(text, reason):
    with pytest.raises(ValueError, match="parse_metadata: expected metadata of format 1") as caught:
        parse_metadata(text, origin="some.onnx")
    assert "some.onnx" in str(caught.value)
    assert reason in str(caught.value)
