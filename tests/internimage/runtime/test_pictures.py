"""Pictures of answers: colours over classes as OpenCV lays them, boxes and masks where they are."""

from __future__ import annotations

import numpy as np
import pytest

from internimage.answers import Detection
from internimage.integrations.openmmlab.segmentation import palettes
from internimage.runtime.pictures import draw_detections, lay_colours

PALETTE = [(250, 0, 0), (0, 250, 0), (7, 70, 177)]


def one(label: int, bbox: tuple[float, float, float, float], name: str | None) -> Detection:
    return Detection(bbox=bbox, label=label, class_name=name, score=0.9, mask=None)


def test_colours_lie_over_classes_as_in_the_pictures_of_pytorch_models():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    label_map = generator.integers(0, 3, (50, 70), dtype=np.uint8)
    expected = palettes.lay_colours(image[..., ::-1].copy(), label_map, PALETTE, opacity=0.5)
    assert np.array_equal(lay_colours(image, label_map, PALETTE), expected[..., ::-1])


def test_a_detection_is_drawn_where_it_is_and_the_image_stays_as_it_was():
    image = np.full((100, 120, 3), 128, np.uint8)
    mask = np.zeros((100, 120), bool)
    mask[60:80, 50:90] = True
    picture = draw_detections(image, [one(1, (50.2, 59.6, 90.0, 80.0), "bee")], [mask], PALETTE)
    assert (image == 128).all()
    assert tuple(picture[60, 70]) == PALETTE[1]  # the box
    inside = picture[70, 70].astype(int)
    assert inside[1] > 150 > 100 > inside[0]  # green, through which grey is seen
    assert (picture[90:, 100:] == 128).all()


@pytest.mark.parametrize("name", [None, "bee", "蜜蜂", "a name that is far wider than its image"])
def test_any_name_can_be_written_anywhere(name):
    image = np.zeros((40, 30, 3), np.uint8)
    for bbox in ((0, 0, 5, 5), (25, 35, 40, 60), (-5, -5, 3, 3), (10, 10, 10, 10)):
        picture = draw_detections(image, [one(2, bbox, name)], [], PALETTE)
        assert picture.shape == image.shape
        assert picture.any()


def test_nothing_found_is_the_image_itself():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(draw_detections(image, [], [], []), image)
