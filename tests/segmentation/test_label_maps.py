"""Files of label maps have classes alone, whatever outputs a head has beside them."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.evaluation.metrics import citys_metric
from PIL import Image

from internimage.integrations.openmmlab.scripts.label_maps import (
    CityscapesMetricOfClasses,
    IoUMetricOfClasses,
)
from internimage.integrations.openmmlab.scripts.output_folders import OutputFolders

PREDICTED = [[0, 1, 2], [3, 18, 149]]
TRUE = [[0, 1, 1], [2, 255, 2]]


def batch(**fields: Any) -> list[dict[str, Any]]:
    return [
        {
            "img_path": "a/photo.png",
            "seg_map_path": "b/photo_gtFine_labelTrainIds.png",
            "pred_sem_seg": {"data": torch.tensor([PREDICTED])},
            "gt_sem_seg": {"data": torch.tensor([TRUE])},
            **fields,
        }
    ]


@pytest.mark.parametrize(
    ("lowered", "expected"),
    [(False, [[0, 1, 2], [255, 255, 255]]), (True, [[1, 2, 3], [0, 0, 0]])],
)
def test_what_is_no_class_is_ignored_in_files(lowered: bool, expected, tmp_path: Path):
    samples = batch(reduce_zero_label=lowered)
    metric = IoUMetricOfClasses(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    metric.process({}, samples)
    assert np.asarray(Image.open(tmp_path / "photo.png")).tolist() == expected
    # Another metric gets the same samples.
    assert samples[0]["pred_sem_seg"]["data"].tolist() == [PREDICTED]


def test_what_is_no_class_is_wrong_for_the_measure(tmp_path: Path):
    metric = IoUMetricOfClasses(output_dir=str(tmp_path))
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    metric.process({}, batch())
    scores = metric.evaluate(1)
    # a: 1 of 1 pixels; b: 1 of 2; c: predicted once where it is not, and two are missed.
    assert scores["mIoU"] == pytest.approx(100 * (1 + 1 / 2 + 0) / 3, abs=0.01)
    assert scores["aAcc"] == pytest.approx(100 * 2 / 5, abs=0.01)


def test_files_for_cityscapes_have_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    labels = {k: types.SimpleNamespace(id=i) for k, i in {0: 7, 1: 8, 2: 11, 255: 0}.items()}
    tables = types.SimpleNamespace(trainId2label=labels)
    monkeypatch.setattr(citys_metric, "CSEval", object())
    monkeypatch.setattr(citys_metric, "CSLabels", tables)
    metric = CityscapesMetricOfClasses(
        output_dir=str(tmp_path), format_only=True, keep_results=True
    )
    metric.dataset_meta = {"classes": ("road", "sidewalk", "building")}
    metric.process({}, batch())
    assert np.asarray(Image.open(tmp_path / "photo.png")).tolist() == [[7, 8, 11], [0, 0, 0]]


def test_files_keep_the_sub_folders_of_their_images(tmp_path: Path):
    metric = IoUMetricOfClasses(
        output_dir=str(tmp_path), format_only=True, image_dirs=["set", "set/inner", "other"]
    )
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    places = {
        "set/a/1.jpg": "a/1.png",
        "set/b/1.jpg": "b/1.png",
        "set/inner/a/3.jpg": "a/3.png",
        "elsewhere/2.jpg": "2.png",
    }
    for label, image in enumerate(places):
        labels = {"data": torch.full((1, 2, 3), label % 3)}
        metric.process({}, batch(img_path=image, pred_sem_seg=labels))
    assert metric.output_dir == str(tmp_path)
    for label, place in enumerate(places.values()):
        assert (np.asarray(Image.open(tmp_path / place)) == label % 3).all()


def test_the_second_of_two_images_with_one_file_gets_a_folder_and_a_warning():
    folders = OutputFolders(["a", "b"], suffix=".png")
    assert folders.folder_of("a/x/1.jpg") == Path("x")
    with pytest.warns(UserWarning, match=r"x/1.png is of a/x/1.jpg already: .* is 2/x/1.png"):
        assert folders.folder_of("a/x/1.png") == Path("2/x")
    with pytest.warns(UserWarning, match=r"that of b/x/1.jpg is 3/x/1.png"):
        assert folders.folder_of("b/x/1.jpg") == Path("3/x")
    assert folders.folder_of("a/x/1.jpg") == Path("x")
    assert OutputFolders(["a"]).folder_of("a/x/1.jpg") == Path("x")
