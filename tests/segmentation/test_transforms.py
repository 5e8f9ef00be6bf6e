"""A mask that is not one label a pixel of its image is named, with the rule, as it is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS
from PIL import Image

import internimage.integrations.openmmlab.segmentation  # noqa: F401  (registers transforms)
from internimage.integrations.openmmlab.segmentation import CheckSegMap

HEIGHT, WIDTH = 12, 16
LABELS = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 5


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope("mmseg")


def load(
    mask: Image.Image | np.ndarray,
    folder: Path,
    *,
    suffix: str = ".png",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    reduce_zero_label: bool = False,
    label_map: dict[int, int] | None = None,
    num_classes: int = 5,
    resize: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return the labels that the model gets of a mask and an image of ``size``."""
    path = folder / f"mask{suffix}"
    (Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask).save(path)
    Image.new("RGB", size).save(folder / "image.png")
    steps: list[dict[str, Any]] = [dict(type="LoadImageFromFile")]
    steps += [dict(type="Resize", scale=resize)] if resize else []
    steps += [
        dict(type="LoadAnnotations"),
        dict(type="CheckSegMap", num_classes=num_classes),
        dict(type="PackSegInputs"),
    ]
    packed = Compose([TRANSFORMS.build(step) for step in steps])(
        {
            "img_path": str(folder / "image.png"),
            "seg_map_path": str(path),
            "seg_fields": [],
            "reduce_zero_label": reduce_zero_label,
            "label_map": label_map,
        }
    )
    return packed["data_samples"].gt_sem_seg.data[0].numpy()


def palette_image(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels, mode="P")
    image.putpalette([value for i in range(256) for value in (255 - i, 7 * i % 256, i)])
    return image


@pytest.mark.filterwarnings("ignore:.mode. parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(LABELS, id="grey"),
        pytest.param("palette", id="palette"),
        pytest.param(LABELS.astype(np.uint16), id="16 bits"),
        pytest.param(LABELS.astype(np.int32), id="32 bits"),
    ],
)
def test_labels_come_through_as_they_stand_in_the_file(mask: Any, tmp_path: Path):
    image = palette_image(LABELS) if isinstance(mask, str) else mask
    suffix = ".tif" if image is mask and mask.dtype == np.int32 else ".png"
    assert np.array_equal(load(image, tmp_path, suffix=suffix), LABELS)


def test_a_mask_of_one_bit_has_the_labels_0_and_1(tmp_path: Path):
    image = Image.fromarray(LABELS > 2)
    assert image.mode == "1"
    assert np.array_equal(load(image, tmp_path, num_classes=2), LABELS > 2)


def test_what_is_ignored_is_no_label_too_high(tmp_path: Path):
    mask = LABELS.copy()
    mask[3] = 255
    assert np.array_equal(load(mask, tmp_path), mask)
    everything = np.full_like(mask, 255)
    assert np.array_equal(load(everything, tmp_path), everything)


def test_where_0_is_ignored_labels_count_from_1(tmp_path: Path):
    mask = LABELS + 1  # 1 to 5
    mask[0], mask[1] = 0, 255
    learnt = load(mask, tmp_path, reduce_zero_label=True)
    assert (learnt[:2] == 255).all()
    assert np.array_equal(learnt[2:], LABELS[2:])


@pytest.mark.parametrize(
    ("mask", "options", "rule"),
    [
        (np.where(LABELS == 4, 7, LABELS), {}, "= labels 0 to 4, and 255 .* got 7 in 38 of 192"),
        (
            np.where(LABELS == 4, 254, LABELS),
            {"reduce_zero_label": True},
            "= labels 1 to 5, and 0 and 255 .* got 254 in",
        ),
        (
            np.arange(1, 193, dtype=np.uint8).reshape(HEIGHT, WIDTH),
            {"reduce_zero_label": True},
            r"got 6, 7, 8, 9, 10, \.\.\. in 187 of 192",
        ),
        (LABELS.astype(np.uint16) * 100, {}, "one label of 8 bits a pixel, got a label over 255"),
        (np.stack([LABELS] * 3, axis=-1), {}, "one label of 8 bits a pixel, got a colour mask"),
        (np.stack([LABELS] * 4, axis=-1), {}, "got a colour mask: .* is RGBA"),
        (LABELS.astype(np.float32), {"suffix": ".tif"}, "got a float mask"),
        (LABELS, {"suffix": ".jpg"}, "got a lossy mask"),
        (LABELS[:-1], {}, "= 16 x 12 pixels, the size of its image .*image.png, got 16 x 11"),
        (LABELS, {"size": (HEIGHT, WIDTH)}, "= 12 x 16 pixels, .* got 16 x 12"),
        (LABELS[:1], {}, "CheckSegMap: expected"),
    ],
)
def test_a_mask_that_is_wrong_is_named_with_the_rule_and_the_value(
    mask: np.ndarray, options: dict[str, Any], rule: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=rule) as error:
        load(mask, tmp_path, **options)
    assert f"mask{options.get('suffix', '.png')}" in str(error.value)
    assert "\n" not in str(error.value)


def test_behind_a_resize_the_mask_has_the_size_of_the_file_and_not_of_the_image(tmp_path: Path):
    assert np.array_equal(load(LABELS, tmp_path, resize=(64, 48)), LABELS)
    with pytest.raises(ValueError, match="= 16 x 12 pixels"):
        load(LABELS.repeat(4, 0).repeat(4, 1), tmp_path, resize=(64, 48))


@pytest.mark.parametrize("shape", [(1, 16), (12, 1), (1, 1)])
def test_a_side_of_one_pixel_is_kept(shape: tuple[int, int], tmp_path: Path):
    height, width = shape
    mask = LABELS[:height, :width]
    assert np.array_equal(load(mask, tmp_path, size=(width, height)), mask)


def test_colours_of_an_image_one_pixel_high_are_no_mask(tmp_path: Path):
    mask = np.zeros((1, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="colour mask"):
        load(mask, tmp_path, size=(16, 1))


def test_a_mask_that_no_file_of_this_machine_has_is_checked_by_what_was_loaded():
    check = CheckSegMap(num_classes=5)
    results = {"seg_map_path": "s3://bucket/mask.png", "ori_shape": (HEIGHT, WIDTH)}
    assert check({**results, "gt_seg_map": LABELS})["gt_seg_map"] is LABELS
    with pytest.raises(ValueError, match="s3://bucket/mask.png = one label a pixel, not a colour"):
        check({**results, "gt_seg_map": np.stack([LABELS] * 3, axis=-1)})
    with pytest.raises(ValueError, match="s3://bucket/mask.png = labels 0 to 4"):
        check({**results, "gt_seg_map": LABELS + 1})


def test_another_label_may_be_the_ignored_one():
    check = CheckSegMap(num_classes=4, ignore_index=4)
    assert repr(check) == "CheckSegMap(num_classes=4, ignore_index=4)"
    results = {"ori_shape": (HEIGHT, WIDTH)}
    check({**results, "gt_seg_map": LABELS})
    with pytest.raises(ValueError, match=re.escape("labels 0 to 3, and 4 for what is ignored")):
        check({**results, "gt_seg_map": np.where(LABELS == 0, 255, LABELS)})


def test_where_0_is_ignored_the_ignored_label_is_255():
    check = CheckSegMap(num_classes=3, ignore_index=200)
    results = {"ori_shape": (HEIGHT, WIDTH), "reduce_zero_label": True}
    with pytest.raises(ValueError, match="ignore_index = 255 with reduce_zero_label, .* got 200"):
        check({**results, "gt_seg_map": np.where(LABELS < 3, LABELS, 255).astype(np.uint8)})
    with pytest.raises(ValueError, match="labels 1 to 3, and 0 and 201 for what .* got 4, 5 in"):
        check({**results, "gt_seg_map": LABELS.astype(np.uint8)})


@pytest.mark.parametrize("num_classes", [0, 256, 300])
def test_classes_are_as_many_as_a_mask_can_hold(num_classes: int):
    CheckSegMap(num_classes=1), CheckSegMap(num_classes=255)
    with pytest.raises(ValueError, match=f"expected num_classes = 1 to 255, .* got {num_classes}"):
        CheckSegMap(num_classes=num_classes)
