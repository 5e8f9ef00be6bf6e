"""A segmentor predicts what mmseg's own inference predicts, and says what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from PIL import Image

from internimage.cli_segment import PALETTES
from internimage.integrations.openmmlab.prediction.detector import build_detector
from internimage.integrations.openmmlab.prediction.saved_config import read_saved_config
from internimage.integrations.openmmlab.prediction.segmentor import (
    Segmentor,
    build_segmentor,
    count_labels,
)
from internimage.integrations.openmmlab.scripts.config_file import unformatted
from internimage.integrations.openmmlab.segmentation.palettes import (
    DATA_SETS,
    PaletteName,
    named_palette,
    random_palette,
)
from tests.detection import tiny_detectors
from tests.segmentation.tiny_segmentors import (
    NAMES,
    PALETTE,
    ROOT,
    make_pixels,
    save_tiny_segmentor,
    tiny_config,
)

CONFIGS = ROOT / "segmentation" / "configs"
SLIDE = dict(mode="slide", crop_size=(64, 48), stride=(40, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the config and the checkpoint of a tiny UPerNet, and a picture."""
    folder = tmp_path_factory.mktemp("segmentor")
    save_tiny_segmentor(tiny_config(folder), folder / "model.pth")
    cv2.imwrite(str(folder / "photo.png"), make_pixels())
    return folder


@pytest.fixture(scope="module")
def segmentor(folder) -> Segmentor:
    return build_segmentor(folder / "model.pth")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_pixels()


# --------------------------------------------------------------------------------------------------
# the class of every pixel


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "windows"])
def test_label_maps_are_those_of_mmsegs_own_inference(folder, tmp_path, image, test_cfg):
    config = Config.fromfile(folder / "config.py")
    config.model.test_cfg = test_cfg
    config.dump(tmp_path / "config.py")
    ours = build_segmentor(folder / "model.pth", tmp_path / "config.py").segment(image)
    config.model.type = "EncoderDecoder"
    config.model.decode_head.norm_cfg.type = config.model.auxiliary_head.norm_cfg.type = "BN"
    config.test_pipeline = config.test_dataloader.dataset.pipeline
    model = init_model(config, str(folder / "model.pth"), device="cpu")
    expected = inference_model(model, str(folder / "photo.png")).pred_sem_seg.data[0].numpy()
    assert ours.shape == image.shape[:2]
    assert len(np.unique(expected)) > 1
    assert np.array_equal(ours, expected)


def test_windows_see_other_things_than_the_whole(folder, segmentor, image):
    options = {"model.test_cfg": SLIDE}
    sliding = build_segmentor(folder / "model.pth", folder / "config.py", cfg_options=options)
    assert (sliding.segment(image) != segmentor.segment(image)).any()


def test_augmentation_by_mirroring_finds_in_a_mirror_image_the_mirror_image(tmp_path, image):
    path = tiny_config(
        tmp_path,
        tta_pipeline=[
            dict(type="LoadImageFromFile"),
            dict(
                type="TestTimeAug",
                transforms=[
                    [dict(type="Resize", scale=(128, 96), keep_ratio=True)],
                    [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
                    [dict(type="LoadAnnotations")],
                    [dict(type="CheckSegMap", num_classes=5)],
                    [dict(type="PackSegInputs")],
                ],
            ),
        ],
    )
    checkpoint = save_tiny_segmentor(path, tmp_path / "model.pth")
    both = build_segmentor(checkpoint, tta=True)
    label_map = both.segment(image)
    mirrored = both.segment(np.ascontiguousarray(image[:, ::-1]))
    # Sums in another order: pixels between two classes may differ.
    assert (mirrored[:, ::-1] == label_map).mean() > 0.999
    alone = build_segmentor(checkpoint).segment(image)
    assert 0.5 < (alone == label_map).mean() < 0.999


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 21), (200, 40)])
def test_images_of_any_size_have_a_label_map_and_a_picture_of_that_size(segmentor, shape):
    image = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    label_map = segmentor.segment(image)
    assert label_map.shape == shape
    assert label_map.dtype == np.uint8
    assert label_map.max() < len(NAMES)
    assert segmentor.draw(image, label_map).shape == image.shape
    assert segmentor.label_image(label_map).size == shape[::-1]


def test_an_image_that_cannot_be_resized_is_named_by_its_size(segmentor):
    with pytest.raises(ValueError, match="the pipeline can resize .* got 4000x1 pixels"):
        segmentor.segment(np.zeros((1, 4000, 3), np.uint8))


def test_a_single_output_gives_two_labels(tmp_path, image):
    head = dict(num_classes=2, out_channels=1, threshold=0.5)
    path = tiny_config(tmp_path, model__decode_head=head, model__auxiliary_head=None)
    checkpoint = save_tiny_segmentor(path, tmp_path / "model.pth", classes=("no", "yes"))
    segmentor = build_segmentor(checkpoint)
    assert count_labels(segmentor.model) == 2
    assert set(np.unique(segmentor.segment(image))) == {0, 1}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(folder, tmp_path, value):
    saved = torch.load(folder / "model.pth", weights_only=True)
    saved["state_dict"]["decode_head.conv_seg.bias"][1] = value
    torch.save(saved, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"expected finite weights, got NaN or .*conv_seg\.bias"):
        build_segmentor(tmp_path / "nan.pth")


def test_scores_that_overflow_are_refused(folder, tmp_path, image):
    saved = torch.load(folder / "model.pth", weights_only=True)
    saved["state_dict"]["decode_head.conv_seg.weight"].fill_(3e38)
    torch.save(saved, tmp_path / "huge.pth")
    with pytest.raises(
        ValueError, match="expected finite scores for an image, got NaN or infinity"
    ):
        build_segmentor(tmp_path / "huge.pth").segment(image)


# --------------------------------------------------------------------------------------------------
# what is said and drawn


def test_a_description_counts_the_pixels_of_each_class_the_largest_first(segmentor):
    label_map = np.zeros((10, 10), np.uint8)
    label_map[:3] = 4
    label_map[9, :5] = 2
    found = segmentor.describe(label_map)
    assert [(one.label, one.class_name, one.pixels, one.share) for one in found] == [
        (0, "ant", 65, 0.65),
        (4, "eel", 30, 0.3),
        (2, "cat", 5, 0.05),
    ]


def test_a_picture_is_the_image_under_the_colours_of_its_classes(segmentor):
    image = np.full((4, 6, 3), 100, np.uint8)
    label_map = np.zeros((4, 6), np.uint8)
    label_map[:, 3:] = 3
    picture = segmentor.draw(image, label_map, opacity=0.25)
    assert picture[0, 0].tolist() == [
        75,
        75,
        138,
    ]  # blue, green, red; 0.25 of a class's (250, 0, 0)
    assert picture[0, 5].tolist() == [75, 125, 125]
    assert (segmentor.draw(image, label_map, opacity=0.0) == image).all()
    assert segmentor.draw(image, label_map, opacity=1.0)[0, 5].tolist() == [0, 200, 200]


def test_a_label_image_holds_the_labels_in_the_colours_of_the_classes(segmentor, tmp_path):
    label_map = np.arange(5, dtype=np.uint8).reshape(1, 5)
    segmentor.label_image(label_map).save(tmp_path / "labels.png")
    read = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_COLOR)
    assert [tuple(pixel[::-1]) for pixel in read[0].tolist()] == PALETTE
    assert (tmp_path / "labels.png").read_bytes()[24] == 8  # bits a pixel
    with Image.open(tmp_path / "labels.png") as file:
        assert file.mode == "P"
        assert np.array_equal(np.asarray(file), label_map)


def test_more_than_256_classes_have_label_images_of_16_bits(folder, tmp_path):
    heads = dict(model__decode_head__num_classes=300, model__auxiliary_head__num_classes=300)
    names = tuple(f"class {index}" for index in range(300))
    path = tiny_config(tmp_path, **heads)
    save_tiny_segmentor(path, tmp_path / "model.pth", classes=names, palette=[(1, 2, 3)] * 300)
    segmentor = build_segmentor(tmp_path / "model.pth")
    label_map = segmentor.segment(make_pixels())
    assert label_map.dtype == np.uint16
    label_map[0, :2] = 299, 256
    segmentor.label_image(label_map).save(tmp_path / "labels.png")
    read = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    assert np.array_equal(read, label_map)


# --------------------------------------------------------------------------------------------------
# names and colours


def test_names_and_colours_come_from_mmseg_0_and_from_mmseg_1_checkpoints(
    folder, tmp_path, segmentor
):
    assert (segmentor.class_names, segmentor.palette) == (NAMES, PALETTE)
    saved = torch.load(folder / "model.pth", weights_only=True)
    old = {"CLASSES": list("vwxyz"), "PALETTE": [[i, 2, 3] for i in range(5)], "config": "model=1"}
    torch.save({"meta": old, "state_dict": saved["state_dict"]}, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=r"with the config of mmseg 0\.x; give --config FILE"):
        build_segmentor(tmp_path / "old.pth")
    of_old = build_segmentor(tmp_path / "old.pth", folder / "config.py")
    assert of_old.class_names == tuple("vwxyz")
    assert of_old.palette == [(i, 2, 3) for i in range(5)]


def test_a_head_may_have_more_outputs_than_there_are_names_but_not_fewer(tmp_path):
    """The released heads of Cityscapes have 150 outputs for its 19 classes."""
    path = tiny_config(tmp_path)
    fewer = save_tiny_segmentor(path, tmp_path / "a.pth", classes=NAMES[:3], palette=PALETTE[:3])
    segmentor = build_segmentor(fewer)
    assert segmentor.class_names == NAMES[:3]
    assert segmentor.palette[:3] == PALETTE[:3]
    assert len(segmentor.palette) == 5
    (other,) = segmentor.describe(np.full((2, 2), 4, np.uint8))
    assert (other.label, other.class_name) == (4, None)
    more = save_tiny_segmentor(path, tmp_path / "b.pth", classes=(*NAMES, "fox"))
    with pytest.raises(ValueError, match="expected 5 class names as the model has classes, got 6"):
        build_segmentor(more)


def test_what_the_checkpoint_does_not_say_is_that_of_the_configs_data_set(tmp_path):
    heads = dict(model__decode_head__num_classes=19, model__auxiliary_head__num_classes=19)
    path = tiny_config(tmp_path, **heads)
    config = Config.fromfile(path)
    pipeline = config.test_dataloader.dataset.pipeline
    config.test_dataloader.dataset = dict(type="CityscapesDataset", pipeline=pipeline)
    config.dump(path)
    checkpoint = save_tiny_segmentor(path, tmp_path / "model.pth", classes=None)
    segmentor = build_segmentor(checkpoint)
    assert segmentor.class_names[:2] == ("road", "sidewalk")
    assert segmentor.palette[:2] == [(128, 64, 128), (244, 35, 232)]


def test_the_names_of_palettes_are_the_same_ones_everywhere():
    assert {*DATA_SETS, "random"} == set(get_args(PaletteName)) == set(PALETTES)


CLASSES = {
    "ade": 150, "ade20k": 150, "cityscapes": 19, "cocostuff": 171, "mapillary": 66, "nyu": 40,
    "pascal_context": 59, "voc": 21,
}  # fmt: skip


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_named_palette_has_a_colour_for_each_class_of_its_data_set(name):
    assert len(named_palette(name, 2)) == CLASSES[name]
    with pytest.raises(ValueError, match=f"a colour for each of 999 classes, got {name} with"):
        named_palette(name, 999)


def test_random_colours_are_all_different_and_the_same_each_time():
    colours = random_palette(300)
    assert len(set(colours)) == 300
    assert named_palette("random", 300) == colours
    near = min(
        sum(abs(x - y) for x, y in zip(colours[i], colours[j], strict=True))
        for i in range(20)
        for j in range(i)
    )
    assert near > 40


def test_a_palette_with_too_few_colours_is_refused(tmp_path):
    heads = dict(model__decode_head__num_classes=30, model__auxiliary_head__num_classes=30)
    names = tuple(f"class {index}" for index in range(30))
    path = tiny_config(tmp_path, **heads)
    checkpoint = save_tiny_segmentor(path, tmp_path / "model.pth", classes=names, palette=None)
    with pytest.raises(ValueError, match="a colour for each of 30 classes, got cityscapes with 19"):
        build_segmentor(checkpoint, palette="cityscapes")
    assert build_segmentor(checkpoint, palette="ade20k").palette[0] == (120, 120, 120)


# --------------------------------------------------------------------------------------------------
# what does not fit


@pytest.mark.parametrize(
    "name",
    [
        "ade20k/upernet_internimage_t_512_160k_ade20k",
        "ade20k/mask2former_internimage_h_896_80k_cocostuff2ade20k_ss",
    ],
)
@pytest.mark.parametrize("style", [unformatted, lambda config: config], ids=["ours", "mmengine's"])
def test_a_config_is_read_from_its_text_as_running_it_reads_it(name, style):
    config = style(Config.fromfile(CONFIGS / f"{name}.py"))
    saved = read_saved_config(config.pretty_text, origin="x.pth")
    for part in ("model", "test_dataloader", "tta_model", "tta_pipeline"):
        assert config.to_dict()[part] == saved.to_dict()[part]


@pytest.fixture(scope="module")
def detection(tmp_path_factory) -> Path:
    """A folder with the config and the checkpoint of a tiny Mask R-CNN."""
    folder = tmp_path_factory.mktemp("detection")
    path = tiny_detectors.tiny_config(folder)
    tiny_detectors.save_tiny_detector(path, folder / "model.pth")
    return folder


def test_a_detector_is_no_segmentor_and_a_segmentor_no_detector(folder, detection):
    found = "expected the checkpoint of a segmentor, got that of a detector .*`internimage detect`"
    with pytest.raises(ValueError, match=found):
        build_segmentor(detection / "model.pth")
    with pytest.raises(ValueError, match=found):
        build_segmentor(detection / "model.pth", folder / "config.py")
    found = "expected the checkpoint of a detector, got that of a segmentor .*`internimage segment`"
    with pytest.raises(ValueError, match=found):
        build_detector(folder / "model.pth")


def test_a_config_of_the_other_task_is_refused(folder, detection):
    with pytest.raises(ValueError, match=r"config of a segmentor, got .*, which makes a MaskRCNN"):
        build_segmentor(folder / "model.pth", detection / "config.py")
    with pytest.raises(ValueError, match=r"a detector, got .*, which makes a InternImageSegmentor"):
        build_detector(detection / "model.pth", folder / "config.py")


def test_a_classifier_is_no_segmentor(folder, tmp_path, filled_model):
    torch.save({"model": filled_model("internimage_test_t").state_dict()}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"got a classifier in .*c\.pth"):
        build_segmentor(tmp_path / "c.pth", folder / "config.py")


def test_a_head_of_another_kind_does_not_fit(folder, tmp_path):
    head = dict(
        type="SegformerHead", in_channels=[16, 32, 64, 128], in_index=[0, 1, 2, 3], channels=16,
        num_classes=5, norm_cfg=dict(type="BN"),
    )  # fmt: skip
    config = Config.fromfile(folder / "config.py")
    config.model.decode_head = head
    config.dump(tmp_path / "config.py")
    with pytest.raises(ValueError, match="with SegformerHead, got a segmentor with UPerHead"):
        build_segmentor(folder / "model.pth", tmp_path / "config.py")


def test_augmentation_without_a_config_of_it_is_refused(folder, tmp_path):
    config = Config.fromfile(folder / "config.py")
    del config._cfg_dict["tta_pipeline"]
    config.dump(tmp_path / "config.py")
    with pytest.raises(ValueError, match="expected tta_model and tta_pipeline for --tta"):
        build_segmentor(folder / "model.pth", tmp_path / "config.py", tta=True)
