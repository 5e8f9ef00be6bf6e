"""The two data sets of ours: what their masks' numbers mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset, MapillaryDataset_v1
from PIL import Image

from internimage.integrations.openmmlab.segmentation import (
    MapillaryToCityscapesDataset,
    NYUDepthV2Dataset,
)

LEARNT = {
    # Cityscapes' label: the labels of Mapillary Vistas 1.2 that the original's models learnt as it
    0: (13, 24, 41),
    1: (2, 15),
    2: (17,),
    3: (6,),
    4: (3,),
    5: (45, 47),
    6: (48,),
    7: (50,),
    8: (30,),
    9: (29,),
    10: (27,),
    11: (19,),
    12: (20, 21, 22),
    13: (55,),
    14: (61,),
    15: (54,),
    16: (58,),
    17: (57,),
    18: (52,),
}
PIPELINE = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=19),
    dict(type="PackSegInputs"),
]


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope("mmseg")


def write(folder: Path, mask: np.ndarray, image: str = "one.jpg") -> None:
    for part, name, pixels in (
        ("images", image, np.zeros((*mask.shape, 3), np.uint8)),
        ("masks", "one.png", mask),
    ):
        (folder / part).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / part / name)


def vistas(folder: Path, **fields: object) -> MapillaryToCityscapesDataset:
    prefix = dict(img_path="images", seg_map_path="masks")
    return MapillaryToCityscapesDataset(
        data_root=str(folder), data_prefix=prefix, pipeline=PIPELINE, **fields
    )


def test_each_of_vistas_classes_is_learnt_as_cityscapes_class_or_ignored(tmp_path: Path):
    mask = np.arange(66, dtype=np.uint8).reshape(6, 11)
    write(tmp_path, mask)
    sample = vistas(tmp_path)[0]["data_samples"]
    expected = np.full_like(mask, 255)
    for label, numbers in LEARNT.items():
        expected[np.isin(mask, numbers)] = label
    assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), expected)
    assert sample.gt_sem_seg.data.unique().tolist() == [*range(19), 255]


def test_what_a_vistas_mask_already_ignores_stays_ignored(tmp_path: Path):
    mask = np.full((6, 11), 255, np.uint8)
    mask[:, 0] = 13
    write(tmp_path, mask)
    (learnt,) = vistas(tmp_path)[0]["data_samples"].gt_sem_seg.data.numpy()
    assert (learnt[:, 0] == 0).all() and (learnt[:, 1:] == 255).all()


def test_a_number_that_vistas_does_not_have_is_an_error(tmp_path: Path):
    mask = np.zeros((6, 11), np.uint8)
    mask[2, 3] = 70
    write(tmp_path, mask)
    with pytest.raises(ValueError, match="labels 0 to 65, and 255 .* got 70 in 1 of 66 pixels"):
        vistas(tmp_path)[0]


def test_other_classes_than_cityscapes_are_refused(tmp_path: Path):
    write(tmp_path, np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="expected the classes of Cityscapes .* got bus, car"):
        vistas(tmp_path, metainfo=dict(classes=("bus", "car")))


def test_every_vistas_class_has_one_meaning():
    numbers = [number for group in LEARNT.values() for number in group]
    assert len(set(numbers)) == len(numbers) == 25
    mapped = MapillaryToCityscapesDataset.get_label_map()
    assert sorted(mapped) == list(range(len(MapillaryDataset_v1.METAINFO["classes"])))
    assert len(MapillaryToCityscapesDataset.METAINFO["palette"]) == 19


def test_nyu_has_40_classes_from_1_and_ignores_0(tmp_path: Path):
    mask = np.arange(41, dtype=np.uint8).reshape(1, 41).repeat(2, 0)
    write(tmp_path, mask, image="one.png")
    (tmp_path / "train.txt").write_text("one\n")
    data = NYUDepthV2Dataset(
        data_root=str(tmp_path),
        data_prefix=dict(img_path="images", seg_map_path="masks"),
        ann_file="train.txt",
        pipeline=[*PIPELINE[:2], dict(type="CheckSegMap", num_classes=40), PIPELINE[-1]],
    )
    assert len(data) == 1
    classes, palette = data.metainfo["classes"], data.metainfo["palette"]
    assert len(set(classes)) == 40 and classes[0] == "wall" and classes[-1] == "other prop"
    assert len(set(map(tuple, palette))) == 40
    assert data[0]["data_samples"].gt_sem_seg.data[0, 0].tolist() == [255, *range(40)]


def test_both_are_ordinary_data_sets_of_mmseg():
    assert issubclass(NYUDepthV2Dataset, BaseSegDataset)
    assert issubclass(MapillaryToCityscapesDataset, BaseSegDataset)
