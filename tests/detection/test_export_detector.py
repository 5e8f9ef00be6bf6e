"""Exported detectors find what mmdet finds in ONNX Runtime; a bad request is one clear error."""

from __future__ import annotations

import functools
import json
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask

from internimage.export import ExportOptions
from internimage.integrations.openmmlab.export import detector
from internimage.integrations.openmmlab.export.detector import export_detector
from internimage.integrations.openmmlab.export.sources import read_export_sources
from internimage.integrations.openmmlab.prediction import detector as loading
from internimage.runtime import load_model
from internimage.runtime.masks import paste_mask
from tests.detection.exportable_detectors import (
    TEXTS,
    assert_same,
    build_detector,
    draw,
    predict,
    save_detector,
)
from tests.detection.small_dino import build, small_config
from tests.detection.tiny_detectors import NAMES, tiny_config

pytestmark = pytest.mark.slow

SMALL = (96, 128)
PIXELS, SCORE = 1e-3, 1e-4


class Pair:
    """A file in ONNX Runtime, and the detector that it was exported from.

    Args:
        path: of the file, beside the detector's config.
    """

    def __init__(self, path):
        self.path = path
        self.model = build_detector(path.parent / "config.py")
        self.session = onnxruntime.InferenceSession(path)

    def run(self, images, sizes):
        """Return the file's outputs."""
        return self.session.run(None, {"input": images.numpy(), "image_size": sizes.numpy()})

    def compare(self, seed, *sizes, padded):
        """Run both on random images, and check that they find the same."""
        images, sizes = draw(seed, *sizes, padded=padded)
        found = self.run(images, sizes)
        assert_same(found, predict(self.model, images, sizes), pixels=PIXELS, score=SCORE)


@pytest.fixture(scope="module")
def pair(exported):
    """Function from the name of an exported model to a :class:`Pair`."""
    return functools.cache(lambda kind: Pair(exported(kind)))


@pytest.mark.parametrize(
    ("sizes", "padded"),
    [
        (((96, 128), (80, 70)), (96, 128)),
        (((33, 64),), (64, 64)),
        (((100, 40), (160, 90), (7, 96)), (160, 96)),
    ],
)
def test_mask_rcnn_finds_what_mmdet_finds_in_any_number_of_images_of_any_size(pair, sizes, padded):
    pair("mask_rcnn dynamic").compare(3, *sizes, padded=padded)


def test_masks_of_the_file_are_those_of_the_model(pair):
    mask_rcnn = pair("mask_rcnn dynamic")
    images, sizes = draw(4, SMALL, padded=SMALL)
    expected = predict(mask_rcnn.model, images, sizes)[0].masks.numpy()
    boxes, _, masks = mask_rcnn.run(images, sizes)
    found = [
        paste_mask(mask, box[:4], SMALL, 0.5) for mask, box in zip(masks[0], boxes[0], strict=True)
    ]
    assert expected.any()
    assert (np.array(found) != expected).mean() < 1e-3


@pytest.mark.parametrize("kind", ["cascade", "dino"])
def test_others_find_what_mmdet_finds_beside_padding_and_without(pair, kind):
    pair(kind).compare(5, SMALL, padded=SMALL)
    pair(kind).compare(6, (80, 70), padded=SMALL)


@pytest.mark.parametrize("kind", ["mask_rcnn loops", "cascade loops"])
def test_in_loops_is_found_what_mmdet_finds_in_each_of_two_images(pair, kind):
    pair(kind).compare(5, SMALL, (80, 70), padded=SMALL)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"dynamic": {"batch"}}, "without open axes, for boxes = loops, got batch open"),
        (
            {"model__rpn_head__bbox_coder__clip_border": False},
            {},
            "clip_border = True of all bbox_coder",
        ),
    ],
)
def test_what_loops_cannot_do_is_one_error(tmp_path, changes, options, message):
    config = tiny_config(tmp_path, TEXTS["mask_rcnn"], **changes)
    options = ExportOptions(boxes="loops", **options)
    with pytest.raises(ValueError, match=f"export_detector: expected .*{message}"):
        export_detector(config, None, tmp_path / "model.onnx", options)


def test_dino_finds_what_mmdet_finds_in_any_number_of_images_of_any_size(pair):
    dino = pair("dino dynamic")
    dino.compare(7, (96, 128), padded=(96, 128))
    dino.compare(8, (90, 224), (160, 61), (5, 100), padded=(160, 224))


def test_metadata_say_all_that_a_program_needs(pair):
    facts = [
        json.loads({p.key: p.value for p in onnx.load(one.path).metadata_props}["internimage"])
        for one in (pair("mask_rcnn dynamic"), pair("dino"))
    ]
    assert facts[0]["task"] == "detection" and facts[0]["classes"] == list(NAMES)
    assert facts[0]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert facts[0]["std"] == pytest.approx([58.395, 57.12, 57.375])
    assert facts[0]["resize"] == {
        "mode": "keep_ratio",
        "scale": [128, 96],
        "filter": "cv2_bilinear",
        "multiple_of": None,
        "pad_divisor": 32,
        "pad_to": None,
        "pad_value": 0,
    }
    assert (facts[0]["input_size"], facts[0]["batch"]) == ([None, None], None)
    assert (facts[0]["score_threshold"], facts[0]["mask_threshold"]) == (0.05, 0.5)
    assert (facts[1]["input_size"], facts[1]["batch"]) == ([96, 128], 1)
    assert facts[1]["resize"]["pad_to"] == [96, 128]
    assert (facts[1]["score_threshold"], facts[1]["mask_threshold"]) == (0.0, None)
    assert len(facts[0]["palette"]) == len(NAMES)


def test_half_precision_finds_nearly_the_same_and_gives_float32(tmp_path):
    config, checkpoint = save_detector(tmp_path, "mask_rcnn")
    report = export_detector(
        config, checkpoint, tmp_path / "model.onnx", ExportOptions(SMALL, precision="fp16")
    )
    assert 0 < report.max_difference < 0.5
    pair = Pair(report.path)
    images, sizes = draw(3, SMALL, padded=SMALL)
    boxes, labels, masks = pair.run(images, sizes)
    assert (boxes.dtype, labels.dtype, masks.dtype) == (np.float32, np.int64, np.float32)
    weights = {one.data_type for one in onnx.load(pair.path).graph.initializer if one.dims}
    assert onnx.TensorProto.FLOAT16 in weights
    (best,) = predict(pair.model, images, sizes)
    assert np.abs(boxes[0, 0, :4] - best.bboxes[0].numpy()).max() < 0.5


def test_the_operators_node_gives_the_same(tmp_path):
    config, checkpoint = save_detector(tmp_path, "mask_rcnn")
    options = ExportOptions(SMALL, operator="node")
    report = export_detector(config, checkpoint, tmp_path / "node.onnx", options)
    assert report.nodes["DCNv3Packed"] == 5 and report.nodes["GridSample"] == 0
    assert report.max_difference < 1e-3


@pytest.mark.parametrize(
    ("size", "message"),
    [((100, 128), "image_size = multiples of 32"), ((32, 32), "at least 30 places")],
)
def test_a_size_that_the_model_cannot_take_is_one_error(tmp_path, size, message):
    config = tiny_config(tmp_path, TEXTS["dino"], model__num_queries=30)
    with pytest.raises(ValueError, match=f"export_detector: expected .*{message}"):
        export_detector(config, None, tmp_path / "model.onnx", ExportOptions(image_size=size))
    assert not (tmp_path / "model.onnx").exists()


def test_a_comparison_without_any_detection_warns(tmp_path, monkeypatch):
    def compare_nothing(*args, compare, **settings):
        nothing = [torch.zeros(1, 20, 5), torch.full((1, 20), -1), torch.zeros(1, 20, 28, 28)]
        difference = compare(nothing, [one.numpy() for one in nothing])
        return SimpleNamespace(checks=[difference], path="model.onnx")

    monkeypatch.setattr(detector, "export_onnx", compare_nothing)
    with pytest.warns(UserWarning, match="without any detection"):
        export_detector(tiny_config(tmp_path), None, tmp_path / "model.onnx", ExportOptions())


WIDE_AND_PORTRAIT = "wide images and portrait images smaller than PyTorch does"


@pytest.mark.parametrize(
    ("options", "opened", "words"),
    [
        ({}, {"height", "width"}, None),
        ({"image_size": SMALL}, set(), "makes portrait images smaller than PyTorch does"),
        ({"image_size": (64, 96)}, set(), WIDE_AND_PORTRAIT),
        ({"image_size": SMALL, "dynamic": {"height"}}, {"height"}, None),
        ({"image_size": (128, 128)}, set(), None),
        ({"dynamic": {"batch"}}, {"batch"}, "dynamic height width gives PyTorch's answer for all"),
        ({"boxes": "loops"}, set(), "--boxes loops takes one size alone"),
        ({"boxes": "loops"}, set(), "makes portrait images smaller than PyTorch does"),
    ],
)
def test_sides_are_open_unless_asked_otherwise_and_a_fixed_size_says_what_it_does(
    tmp_path, monkeypatch, options, opened, words
):
    seen = []

    def export_nothing(*args, options, **settings):
        seen.append(options.opened)
        return SimpleNamespace(checks=[], path="model.onnx")

    monkeypatch.setattr(detector, "export_onnx", export_nothing)
    config, output = tiny_config(tmp_path), tmp_path / "model.onnx"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        export_detector(config, None, output, ExportOptions(**options))
    said = [str(one.message) for one in caught if "model.onnx" in str(one.message)]
    assert seen == [opened]
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


def test_boxes_beyond_the_image_are_refused_for_loops_and_warned_of_otherwise(
    tmp_path, monkeypatch
):
    def export_nothing(*_, **__):
        return SimpleNamespace(checks=[], path="model.onnx")

    monkeypatch.setattr(detector, "export_onnx", export_nothing)
    config = tiny_config(tmp_path, model__rpn_head__bbox_coder__clip_border=False)
    output = tmp_path / "model.onnx"
    with pytest.warns(UserWarning, match="clip_border = False .* OpenVINO's RoIAlign answers NaN"):
        export_detector(config, None, output, ExportOptions())
    with pytest.raises(ValueError, match="clip_border = True of all bbox_coder for boxes = loops"):
        export_detector(config, None, output, ExportOptions(boxes="loops"))


@pytest.mark.parametrize(("queries", "asked", "most"), [(10, 31, 30), (2000, 3841, 3840)])
def test_a_dino_gives_no_more_detections_than_there_are_or_tensorrt_can_sort(queries, asked, most):
    model = build(small_config(num_queries=queries, test_cfg=dict(max_per_img=asked)))
    with pytest.raises(ValueError, match=f"max_per_img from 1 to {most}, got {asked}"):
        detector.exportable(model.eval())


def test_a_detector_without_weights_or_config_is_one_error(tmp_path):
    config = tiny_config(tmp_path)
    options = ExportOptions()
    with pytest.raises(FileNotFoundError):
        export_detector(config, tmp_path / "missing.pth", tmp_path / "model.onnx", options)
    with pytest.raises((FileNotFoundError, ValueError)):
        export_detector(tmp_path / "missing.py", None, tmp_path / "model.onnx", options)


def undecided_pixels(eager, image):
    """Returns the pixels (n, H, W) whose probability is within 1e-3 of the masks' threshold, 0.5.

    What is right there depends on the machine: rounding decides.
    """
    settings, masks = eager.model.roi_head.test_cfg, []
    for threshold in (0.5 - 1e-3, 0.5 + 1e-3):
        settings.mask_thr_binary = threshold
        masks.append(eager.detect(cv2.imread(str(image)), score_threshold=0.05).masks.numpy())
    settings.mask_thr_binary = 0.5
    return masks[0] != masks[1]


def test_a_trained_detector_in_onnx_runtime_alone_answers_as_internimage_detect(
    trained_run, tmp_path
):
    path = tmp_path / "digits.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # there were detections to compare
        report = export_detector(trained_run.config, trained_run.checkpoint, path, ExportOptions())
    assert report.max_difference <= 1e-3
    eager, model = loading.build_detector(trained_run.checkpoint), load_model(path)
    images = sorted((trained_run.scenes / "val").iterdir())[:10]
    counts = []
    for image in images:
        instances = eager.detect(cv2.imread(str(image)), score_threshold=0.05)
        expected = eager.describe(instances)
        found = model.describe(model.predict(image, score_threshold=0.05))
        assert [one.label for one in found] == [one.label for one in expected]
        assert [one.class_name for one in found] == [one.class_name for one in expected]
        masks = [coco_mask.decode(one.mask).astype(bool) for one in found]
        ties = undecided_pixels(eager, image)
        assert len(masks) == len(instances.masks) == len(ties)
        for mask, other, tie in zip(masks, instances.masks.numpy(), ties, strict=True):
            assert np.array_equal(mask[~tie], other[~tie])
            assert tie.mean() < 0.01
        for one, other in zip(found, expected, strict=True):
            assert one.bbox == pytest.approx(other.bbox, abs=1e-3)
            assert one.score == pytest.approx(other.score, abs=1e-5)
        counts.append(len(expected))
    assert min(counts) > 0 and sum(counts) > 30


RESIZE = dict(type="Resize", scale=(100, 60), keep_ratio=False)


def resize_fields(config, **options):
    """Return what the metadata of an export of this config say about resizing."""
    sources = read_export_sources("detector", Config.fromfile(config), None)
    model = SimpleNamespace(data_preprocessor=SimpleNamespace(pad_value=0))
    options = ExportOptions(**options)
    return detector._resize_fields(sources, model, options.image_size, 32, options)


@pytest.mark.parametrize(
    ("size", "dynamic", "expected"),
    [
        ((96, 128), (), [96, 128]),
        ((96, 128), ("height",), [None, 128]),
        ((96, 128), ("width",), [96, None]),
        ((96, 128), ("height", "width"), None),
    ],
)
def test_a_side_that_is_fixed_is_padded_to_and_one_that_is_open_is_not(
    tmp_path, size, dynamic, expected
):
    fields = resize_fields(tiny_config(tmp_path), image_size=size, dynamic=frozenset(dynamic))
    assert fields["mode"] == "keep_ratio"
    assert fields["pad_to"] == expected
    assert fields["pad_divisor"] == 32


@pytest.mark.parametrize(
    ("size", "dynamic", "expected", "padded"),
    [
        ((64, 128), (), [60, 100], [64, 128]),  # padded, as mmdet pads
        ((64, 128), ("height", "width"), [60, 100], None),
        ((32, 64), (), [32, 64], [32, 64]),  # as large as the input can take
    ],
)
def test_an_image_whose_ratio_of_sides_is_not_kept_is_resized_as_the_config_says_then_padded(
    tmp_path, size, dynamic, expected, padded
):
    config = tiny_config(tmp_path)
    settings = Config.fromfile(config)
    steps = settings.test_dataloader.dataset.pipeline
    steps[[step.type for step in steps].index("Resize")] = RESIZE
    settings.dump(config)
    fields = resize_fields(config, image_size=size, dynamic=frozenset(dynamic))
    assert (fields["mode"], fields["size"]) == ("exact", expected)
    assert (fields["pad_to"], fields["pad_divisor"]) == (padded, 32)


def test_an_output_that_cannot_be_written_is_said_before_weights_are_looked_for(tmp_path):
    output = tmp_path / "no_such_folder" / "model.onnx"
    with pytest.raises(FileNotFoundError, match="no_such_folder"):
        export_detector(tiny_config(tmp_path), "no_such_weights.pth", output, ExportOptions())
