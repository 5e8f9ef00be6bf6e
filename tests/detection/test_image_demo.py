"""detection/image_demo.py: the original's flags on the code of ``internimage detect``."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from PIL import Image

from internimage import cli
from tests.detection.tiny_detectors import THRESHOLD
from tests.image_demos import make_folder, run_demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder("detection", tmp_path_factory.mktemp("demo"))


def test_the_originals_command_line_leaves_pictures_in_demo(folder, monkeypatch, capsys):
    code, out, err = run_demo(
        "detection", folder, monkeypatch, capsys, "photos", "config.py", "model.pth",
        "--palette", "coco", "--device", "cpu", "--score-thr", str(THRESHOLD),
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "config: config.py" in out
    names = sorted(path.name for path in (folder / "demo").iterdir())
    assert names == ["a.jpg", "a.json", "b.json", "b.png"]
    for name in ("a", "b"):
        answer = json.loads((folder / "demo" / f"{name}.json").read_text())
        assert len(answer["detections"]) > 3
        assert all(one["score"] >= THRESHOLD for one in answer["detections"])
    assert Image.open(folder / "demo" / "a.jpg").size == (120, 90)


def test_async_test_is_accepted_and_warned_about(folder, monkeypatch, capsys):
    code, _, err = run_demo(
        "detection", folder, monkeypatch, capsys, "photos/b.png", "config.py", "model.pth",
        "--async-test",
    )  # fmt: skip
    assert code == 0
    assert err == (
        "image_demo.py: warning: --async-test has no effect: images are taken one by one\n"
    )


@pytest.mark.slow
def test_a_trained_detector_finds_the_digits_of_images_and_of_a_film(
    trained_run, tmp_path, monkeypatch, capsys
):
    """Through both commands; the annotations of the scenes are the oracle."""
    scenes = json.loads((trained_run.scenes / "annotations" / "val.json").read_text())
    names = {one["id"]: one["name"] for one in scenes["categories"]}
    chosen = scenes["images"][:20]
    files = [trained_run.scenes / "val" / one["file_name"] for one in chosen]
    wanted = [
        [
            (names[one["category_id"]], one["bbox"])
            for one in scenes["annotations"]
            if one["image_id"] == image["id"]
        ]
        for image in chosen
    ]

    def recall(answers: list[list[dict]]) -> float:
        hits = [
            any(
                found["class_name"] == name and overlap(found["bbox"], box) > 0.5
                for found in detections
            )
            for detections, truth in zip(answers, wanted, strict=True)
            for name, box in truth
        ]
        return sum(hits) / len(hits)

    code = cli.main(
        ["detect", *map(str, files), "--checkpoint", str(trained_run.checkpoint), "--output",
         str(tmp_path / "images")]
    )  # fmt: skip
    assert (code, capsys.readouterr().err) == (0, "")
    answers = [json.loads((tmp_path / "images" / f"{f.stem}.json").read_text()) for f in files]
    assert recall([answer["detections"] for answer in answers]) > 0.8
    assert all(one["mask"]["counts"] for answer in answers for one in answer["detections"])
    for file in files:
        picture = cv2.imread(str(tmp_path / "images" / file.name))
        assert picture.shape == cv2.imread(str(file)).shape
        assert (picture != cv2.imread(str(file))).any()  # something is drawn

    height, width = cv2.imread(str(files[0])).shape[:2]
    film = cv2.VideoWriter(
        str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height)
    )
    for file in files:
        film.write(cv2.imread(str(file)))
    film.release()
    code, _, err = run_demo(
        "detection", tmp_path, monkeypatch, capsys, "film.avi", str(trained_run.config),
        str(trained_run.checkpoint), "--out", "film", "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "film/film.jsonl").read_text().splitlines()]
    assert recall([row["detections"] for row in rows]) > 0.7  # the film is compressed


def overlap(box: list[float], other: list[float]) -> float:
    """Intersection over union of a box by its corners and one by its corner and size, as COCO's."""
    left, top, right, bottom = box
    x, y, width, height = other
    across = min(right, x + width) - max(left, x)
    down = min(bottom, y + height) - max(top, y)
    shared = max(0.0, across) * max(0.0, down)
    return shared / ((right - left) * (bottom - top) + width * height - shared)
