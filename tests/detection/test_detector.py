"""A detector predicts what mmdet's own inference predicts, and no checkpoint runs code."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from internimage.integrations.openmmlab.prediction.boxes import OPACITY, Painter
from internimage.integrations.openmmlab.prediction.detector import (
    Detector,
    build_detector,
    count_classes,
)
from internimage.integrations.openmmlab.prediction.saved_config import PARTS, read_saved_config
from internimage.integrations.openmmlab.scripts.config_file import unformatted
from tests.detection.tiny_detectors import (
    NAMES,
    ROOT,
    THRESHOLD,
    save_tiny_detector,
    tiny_config,
)

CONFIGS = ROOT / "detection" / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the config and the checkpoint of a tiny Mask R-CNN, and a picture."""
    folder = tmp_path_factory.mktemp("detector")
    save_tiny_detector(tiny_config(folder), folder / "model.pth")
    generator = np.random.default_rng(0)
    image = cv2.resize(generator.integers(0, 255, (9, 12, 3), dtype=np.uint8), (120, 90))
    cv2.imwrite(str(folder / "photo.png"), image)
    return folder


@pytest.fixture(scope="module")
def detector(folder) -> Detector:
    return build_detector(folder / "model.pth")


@pytest.fixture(scope="module")
def image(folder) -> np.ndarray:
    return cv2.imread(str(folder / "photo.png"))


# --------------------------------------------------------------------------------------------------
# what is found


def test_detections_are_those_of_mmdets_own_inference(folder, detector, image):
    model = init_detector(str(folder / "config.py"), None, palette="random", device="cpu")
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True)["state_dict"])
    expected = inference_detector(model, str(folder / "photo.png")).pred_instances
    expected = expected[expected.scores >= THRESHOLD]
    found = detector.detect(image, score_threshold=THRESHOLD)
    assert len(expected) > 5
    torch.testing.assert_close(found.bboxes, expected.bboxes)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.masks, expected.masks)


def test_a_description_holds_plain_values_and_the_masks_of_the_instances(detector, image):
    found = detector.detect(image, score_threshold=THRESHOLD)
    described = detector.describe(found)
    assert [one.label for one in described] == found.labels.tolist()
    assert [one.class_name for one in described] == [NAMES[i] for i in found.labels]
    assert [one.score for one in described] == sorted(found.scores.tolist(), reverse=True)
    assert [list(one.bbox) for one in described] == found.bboxes.tolist()
    for one, mask in zip(described, found.masks.numpy(), strict=True):
        assert one.mask is not None
        assert one.mask["size"] == [90, 120]
        assert np.array_equal(coco_mask.decode(one.mask).astype(bool), mask)


def test_the_threshold_and_the_limit_leave_out_the_weakest(detector, image):
    everything = detector.detect(image, score_threshold=0.0)
    middle = float(everything.scores[len(everything) // 2])
    above = detector.detect(image, score_threshold=middle)
    assert above.scores.tolist() == [s for s in everything.scores.tolist() if s >= middle]
    best = detector.detect(image, score_threshold=0.0, topk=3)
    assert best.scores.tolist() == everything.scores[:3].tolist()
    assert len(detector.detect(image, score_threshold=1.0)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (33, 21), (200, 40)])
def test_images_of_any_size_have_detections_inside_and_a_picture_of_that_size(detector, shape):
    image = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    found = detector.detect(image, score_threshold=THRESHOLD)
    height, width = shape
    assert (found.bboxes >= 0).all()
    assert (found.bboxes <= torch.tensor([width, height, width, height])).all()
    assert found.masks.shape[1:] == shape
    assert detector.draw(image, found).shape == image.shape


def test_an_image_that_cannot_be_resized_is_named_by_its_size(detector):
    with pytest.raises(ValueError, match=r"the pipeline can resize .* got 4000x1 pixels"):
        detector.detect(np.zeros((1, 4000, 3), np.uint8))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(folder, tmp_path, value):
    saved = torch.load(folder / "model.pth", weights_only=True)
    saved["state_dict"]["roi_head.bbox_head.fc_cls.bias"][1] = value
    torch.save(saved, tmp_path / "nan.pth")
    # Not found in the answers: scores of NaN are below every threshold.
    with pytest.raises(ValueError, match=r"expected finite weights, got NaN or .*fc_cls\.bias"):
        build_detector(tmp_path / "nan.pth")


# --------------------------------------------------------------------------------------------------
# test-time augmentation

BOXES = """
_base_ = [
    "{bases}/models/cascade_rcnn_internimage_fpn.py",
    "{bases}/datasets/coco_detection.py",
    "{bases}/default_runtime.py",
]
"""


@pytest.fixture(scope="module")
def both_ways(folder) -> dict:
    """``tta_model`` and ``tta_pipeline`` that look at an image and at its mirror image."""
    resize = dict(type="Resize", scale=(128, 96), keep_ratio=True)
    flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
    keys = ("img_id", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
    pack = dict(type="PackDetInputs", meta_keys=keys)
    return dict(
        tta_model=dict(
            type="DetTTAModel",
            tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.6), max_per_img=20),
        ),
        tta_pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="TestTimeAug", transforms=[[resize], flips, [pack]]),
        ],
    )


@pytest.mark.slow
def test_augmentation_by_mirroring_finds_in_a_mirror_image_the_mirror_images(
    tmp_path, both_ways, image
):
    text = BOXES.format(bases=CONFIGS / "_base_")
    narrow = dict(in_channels=32, fc_out_channels=32, num_classes=3)
    config = Config.fromstring(text, ".py")
    heads = [{**head, **narrow} for head in config.model.roi_head.bbox_head]
    path = tiny_config(
        tmp_path,
        text,
        model__backbone__arch="test_t",
        model__neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
        model__rpn_head=dict(in_channels=32, feat_channels=32),
        model__roi_head__bbox_roi_extractor__out_channels=32,
        model__roi_head__bbox_head=heads,
        model__test_cfg__rpn=dict(nms_pre=60, max_per_img=60),
        model__test_cfg__rcnn__max_per_img=20,
        **both_ways,
    )
    checkpoint = save_tiny_detector(path, tmp_path / "boxes.pth")
    detector = build_detector(checkpoint, tta=True)
    found = detector.detect(image, score_threshold=0.0)
    mirrored = detector.detect(np.ascontiguousarray(image[:, ::-1]), score_threshold=0.0)
    assert len(found) > 5
    back = mirrored.bboxes.clone()
    back[:, 0::2] = image.shape[1] - mirrored.bboxes[:, [2, 0]]
    # Boxes of equal scores may change places.
    torch.testing.assert_close(found.scores, mirrored.scores)
    for box, label in zip(found.bboxes, found.labels, strict=True):
        same = back[mirrored.labels == label]
        assert (same - box).abs().amax(dim=1).min() < 1e-2
    alone = build_detector(checkpoint).detect(image, score_threshold=0.0)
    assert not torch.allclose(alone.scores[:5], found.scores[:5])


def test_augmentation_without_a_config_of_it_is_refused(folder):
    with pytest.raises(ValueError, match="expected tta_model and tta_pipeline for --tta"):
        build_detector(folder / "model.pth", tta=True)


def test_augmentation_of_masks_is_refused(tmp_path, both_ways):
    checkpoint = save_tiny_detector(tiny_config(tmp_path, **both_ways), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="expected a detector of boxes alone for --tta"):
        build_detector(checkpoint, tta=True)


# --------------------------------------------------------------------------------------------------
# names and colours


def test_names_come_from_mmdet_2_and_from_mmdet_3_checkpoints(folder, tmp_path):
    saved = torch.load(folder / "model.pth", weights_only=True)
    old = {"CLASSES": ("x", "y", "z"), "config": "model = dict(type='MaskRCNN')"}
    torch.save({"meta": old, "state_dict": saved["state_dict"]}, tmp_path / "old.pth")
    detector = build_detector(tmp_path / "old.pth", folder / "config.py")
    assert detector.class_names == ("x", "y", "z")
    assert count_classes(detector.model) == 3


def test_names_that_the_checkpoint_lacks_are_those_of_the_config(folder, tmp_path):
    path = save_tiny_detector(folder / "config.py", tmp_path / "model.pth", classes=None)
    assert build_detector(path).class_names == NAMES


def test_names_of_another_number_of_classes_are_refused(folder, tmp_path):
    path = save_tiny_detector(folder / "config.py", tmp_path / "model.pth", classes=("a", "b"))
    with pytest.raises(ValueError, match="expected 3 class names as the model has classes, got 2"):
        build_detector(path)


def test_a_picture_without_detections_is_the_image(detector, image):
    nothing = detector.detect(image, score_threshold=1.0)
    assert np.array_equal(detector.draw(image, nothing), image)


def test_a_box_is_drawn_where_it_is_and_in_the_colour_of_its_class():
    instances = InstanceData(
        bboxes=torch.tensor([[20.0, 10.0, 80.0, 50.0]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([0.5]),
    )
    image = np.full((64, 100, 3), 7, np.uint8)
    picture = Painter(["a", "b"], [(0, 0, 255), (250, 3, 4)]).draw(image, instances)
    for side in (picture[30, 20], picture[30, 80], picture[50, 40], picture[10, 70]):
        assert side.tolist() == [4, 3, 250]  # blue, green, red
    inside, outside = picture[35:45, 30:70], picture[55:]
    assert (inside == 7).all() and (outside == 7).all()
    text = picture[11:30, 21:60]
    assert ((text == 255).all(axis=-1)).any()  # white on the colour of the class


def test_a_mask_is_laid_over_the_image_and_nowhere_else():
    mask = torch.zeros(1, 64, 100, dtype=torch.bool)
    mask[0, 30:50, 40:70] = True
    instances = InstanceData(
        bboxes=torch.tensor([[2.0, 2.0, 3.0, 3.0]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.5]),
        masks=mask,
    )
    image = np.full((64, 100, 3), 100, np.uint8)
    picture = Painter([], [(200, 0, 100)]).draw(image, instances)
    blended = [round(100 + OPACITY * (value - 100)) for value in (100, 0, 200)]
    assert np.abs(picture[35:45, 45:65].astype(int) - blended).max() <= 1
    assert picture[49, 55].tolist() == [100, 0, 200]  # the outline
    assert (picture[30:50, 75:] == 100).all() and (picture[55:] == 100).all()
    assert (image == 100).all()


def test_the_best_of_two_that_overlap_is_on_top():
    boxes = torch.tensor([[10.0, 30.0, 60.0, 60.0], [10.0, 30.0, 60.0, 60.0]])
    for scores, colour in (([0.9, 0.5], [0, 0, 255]), ([0.5, 0.9], [255, 0, 0])):
        instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 1]), scores=torch.tensor(scores)
        )
        image = np.zeros((80, 100, 3), np.uint8)
        picture = Painter(["a", "b"], [(255, 0, 0), (0, 0, 255)]).draw(image, instances)
        assert picture[45, 10].tolist() == colour  # blue, green, red


def test_a_palette_with_too_few_colours_is_refused(folder):
    with pytest.raises(ValueError, match="expected a palette with a colour for each of 30 classes"):
        names = tuple(f"class {i}" for i in range(30))
        heads = {"bbox": dict(num_classes=30), "mask": dict(num_classes=30)}
        changes = {f"model__roi_head__{key}_head": value for key, value in heads.items()}
        path = tiny_config(folder.parent, **changes)
        checkpoint = save_tiny_detector(path, folder.parent / "many.pth", classes=names)
        build_detector(checkpoint, palette="voc")


# --------------------------------------------------------------------------------------------------
# what a checkpoint may ask for


@pytest.mark.parametrize(
    "name",
    [
        "coco/mask_rcnn_internimage_t_fpn_1x_coco",
        "coco/dino_4scale_internimage_t_1x_coco_layer_wise_lr",
    ],
)
@pytest.mark.parametrize("style", [unformatted, lambda config: config], ids=["ours", "mmengine's"])
def test_a_config_is_read_from_its_text_as_running_it_reads_it(name, style):
    config = style(Config.fromfile(CONFIGS / f"{name}.py"))
    saved = read_saved_config(config.pretty_text, origin="x.pth")
    assert config.to_dict()["model"] == saved.to_dict()["model"]
    assert config.to_dict()["test_dataloader"] == saved.to_dict()["test_dataloader"]
    assert set(saved) <= set(PARTS)


def test_keys_that_are_no_names_and_negative_numbers_are_read():
    text = "model = dict(a={'x-y': -1.5, 2: (1, )}, b=dict({'c-d': None}), c=[True])\nwork_dir = 1"
    assert read_saved_config(text, origin="x.pth").to_dict() == {
        "model": {"a": {"x-y": -1.5, 2: (1,)}, "b": {"c-d": None}, "c": [True]}
    }


HOSTILE = {
    "a call": ("model = open('{file}', 'w').close()", "cannot be read without running it"),
    "a comprehension": ("model = [x for x in (1,)]", "cannot be read without running it"),
    "a name": ("model = dict(type=exit)", "cannot be read without running it"),
    "no Python": ("model = dict(", "cannot be read without running it"),
    "a function as type": (
        "model = dict(type='MaskRCNN', neck=dict(type='pathlib.Path.touch', self='{file}'))",
        "got model.neck.type = 'pathlib.Path.touch'",
    ),
    "a function in a list": (
        "model = dict(a=[dict(type='os.system')])",
        r"got model.a\[0\].type = 'os.system'",
    ),
    "an expression that mmdet evaluates": (
        "model = dict(type='MaskRCNN', train_cfg=dict(assigner=dict("
        "type='CameraMotionCompensation', warp_mode='open(\"{file}\", \"w\")')))",
        "expected no calls in strings .* got model.train_cfg.assigner.warp_mode",
    ),
    "a function of a library": (
        "model = dict(type='mmengine.call_command', cmd=['touch', '{file}'])",
        "expected registered names as types .* got model.type = 'mmengine.call_command'",
    ),
    "a module as type": (
        "model = dict(type='MaskRCNN', neck=dict(type='{stem}'))",
        "got model.neck.type = '{stem}'",
    ),
    "a module that is called like a type": (
        "model = dict(type='MaskRCNN', neck=dict(type='LoadImageFromFile'))",
        "got model.neck.type = 'LoadImageFromFile'",
    ),
    "a foreign scope of all": (
        "default_scope = '{stem}'\nmodel = dict(type='MaskRCNN')",
        "expected default_scope = mmengine, .* or mmpretrain .* got default_scope = '{stem}'",
    ),
    "a foreign scope of a part": (
        "model = dict(type='MaskRCNN', neck=[dict(_scope_='{stem}', type='FPN')])",
        r"expected _scope_ = mmengine, .* got model.neck\[0\]._scope_ = '{stem}'",
    ),
    "a scope that is a list": (
        "model = dict(type='MaskRCNN', _scope_=['{stem}'])",
        r"got model._scope_ = \['{stem}'\]",
    ),
    "a dict of another": (
        "model = dict(**dict(type='MaskRCNN'))",
        "cannot be read without running it",
    ),
    "a type that is a dict": ("model = dict(a=dict(type=dict(b=1)))", "got model.a.type = "),
    "an import": (
        "custom_imports = dict(imports=['{stem}'])\nmodel = dict(type='MaskRCNN')",
        "expected a config that imports nothing but internimage",
    ),
    "an import of the same beginning": (
        "custom_imports = dict(imports='internimage.integrations.openmmlab_evil')",
        "expected a config that imports nothing but internimage",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_config_that_asks_for_code_is_refused_and_nothing_runs(
    kind, folder, tmp_path, monkeypatch
):
    text, message = HOSTILE[kind]
    trace = tmp_path / "trace"
    for module in ("hostile/__init__", "hostile/registry", "LoadImageFromFile"):
        source = tmp_path / f"{module}.py"
        source.parent.mkdir(exist_ok=True)
        source.write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    saved = torch.load(folder / "model.pth", weights_only=True)
    saved["meta"]["cfg"] = text.format(file=trace, stem="hostile")
    torch.save(saved, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message.replace("{stem}", "hostile")) as caught:
        build_detector(tmp_path / "model.pth")
    assert "give --config FILE" in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["MaskRCNN", "mmdet.MaskRCNN", "InternImage", "nms", "BN"])
def test_names_that_libraries_register_are_types_of_a_saved_config(kind):
    text = f"default_scope = 'mmdet'\nmodel = dict(_scope_='mmseg', type={kind!r})"
    assert read_saved_config(text, origin="x.pth").model.type == kind


def test_names_of_classes_may_hold_anything():
    text = "test_dataloader = dict(dataset=dict(metainfo=dict(classes=('cup (paper)', ))))"
    saved = read_saved_config(text, origin="x.pth")
    assert saved.test_dataloader.dataset.metainfo.classes == ("cup (paper)",)


def test_our_own_imports_may_stand_in_a_saved_config():
    names = ["internimage.integrations.openmmlab", "internimage.integrations.openmmlab.detection"]
    text = f"custom_imports = dict(imports={names!r}, allow_failed_imports=False)\nmodel = dict()"
    assert read_saved_config(text, origin="x.pth").to_dict() == {"model": {}}


def test_an_executable_pickle_is_refused_and_nothing_runs(tmp_path, folder):
    class Touch:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trace",))

    torch.save({"state_dict": {}, "meta": Touch()}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth"):
        build_detector(tmp_path / "model.pth", folder / "config.py")
    assert not (tmp_path / "trace").exists()


# --------------------------------------------------------------------------------------------------
# what does not fit


def test_a_checkpoint_without_a_config_asks_for_one(folder, tmp_path):
    path = save_tiny_detector(folder / "config.py", tmp_path / "m.pth", with_config=False)
    with pytest.raises(ValueError, match=r"got .*m\.pth with none; give --config FILE"):
        build_detector(path)
    saved = torch.load(path, weights_only=True)
    saved["meta"]["config"] = "model = dict(type='MaskRCNN')"
    torch.save(saved, path)
    with pytest.raises(ValueError, match=r"with the config of mmdet 2\.x; give --config FILE"):
        build_detector(path)


def test_a_classifier_is_no_detector(folder, tmp_path, filled_model):
    weights = filled_model("internimage_test_t").state_dict()
    torch.save({"model": weights}, tmp_path / "classifier.pth")
    with pytest.raises(ValueError, match=r"got a classifier in .*classifier\.pth"):
        build_detector(tmp_path / "classifier.pth", folder / "config.py")


def test_a_config_of_other_widths_does_not_fit(folder, tmp_path):
    other = tiny_config(tmp_path, model__roi_head__bbox_head__fc_out_channels=48)
    with pytest.raises(ValueError, match="expected a checkpoint of this model, got .*fc_cls"):
        build_detector(folder / "model.pth", other)


def test_a_config_with_a_misspelt_argument_is_one_line(folder, tmp_path):
    other = tiny_config(tmp_path, model__neck__out_chanels=3)
    with pytest.raises(ValueError, match="expected a config that today's mmdet can build") as error:
        build_detector(folder / "model.pth", other)
    assert "\n" not in str(error.value)


def test_settings_override_a_config_and_need_one(folder):
    options = {"model.test_cfg.rcnn.max_per_img": 2}
    detector = build_detector(folder / "model.pth", folder / "config.py", cfg_options=options)
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    assert len(detector.detect(image, score_threshold=0.0)) == 2
    with pytest.raises(ValueError, match="expected a config to override"):
        build_detector(folder / "model.pth", cfg_options=options)
