"""detection/image_demo.py: the original's flags on the code of ``internimage detect``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detection import image_demo
from internimage import cli
from tests.detection.tiny_detectors import ROOT, THRESHOLD, save_tiny_detector, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    save_tiny_detector(tiny_config(folder), folder / "model.pth", with_config=False)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(
            folder / "photos" / name
        )
    return folder


def demo(folder: Path, monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.chdir(folder)
    code = image_demo.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_originals_command_line_leaves_pictures_in_demo(folder, monkeypatch, capsys):
    code, out, err = demo(
        folder, monkeypatch, capsys, "photos", "config.py", "model.pth", "--palette", "coco",
        "--device", "cpu", "--score-thr", str(THRESHOLD),
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "config: config.py" in out
    names = sorted(path.name for path in (folder / "demo").iterdir())
    assert names == ["a.jpg", "a.json", "b.json", "b.png"]
    for name in ("a", "b"):
        answer = json.loads((folder / "demo" / f"{name}.json").read_text())
        assert len(answer["detections"]) > 3
        assert all(one["score"] >= THRESHOLD for one in answer["detections"])
    assert Image.open(folder / "demo" / "a.jpg").size == (64, 48)


def test_a_single_image_goes_into_the_folder_of_out(folder, monkeypatch, capsys):
    code, _, _ = demo(
        folder, monkeypatch, capsys, "photos/b.png", "config.py", "model.pth", "--out", "there"
    )
    assert code == 0
    assert sorted(path.name for path in (folder / "there").iterdir()) == ["b.json", "b.png"]


def test_async_test_is_accepted_and_warned_about(folder, monkeypatch, capsys):
    code, _, err = demo(
        folder, monkeypatch, capsys, "photos/b.png", "config.py", "model.pth", "--async-test"
    )
    assert code == 0
    assert err == (
        "image_demo.py: warning: --async-test has no effect: images are taken one by one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jpg", "config.py", "model.pth"], "expected an existing image file, got none.jpg"),
        (["photos", "none.py", "model.pth"], "expected a config file, got none at none.py"),
        (["photos", "config.py"], "the following arguments are required: checkpoint"),
        (["photos", "config.py", "model.pth", "--score-thr", "7"], "from 0 to 1, got 7"),
        (["photos", "config.py", "model.pth", "--palete", "voc"], "did you mean --palette?"),
        (["photos", "old.py", "model.pth"], "mmdet"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder, arguments, message, monkeypatch, capsys):
    (folder / "old.py").write_text(
        "model = dict(type='MaskRCNN', pretrained=None)\n"
        "data = dict(samples_per_gpu=2, test=dict(type='CocoDataset'))\n"
        "optimizer = dict(type='AdamW')\n"
    )
    code, _, err = demo(folder, monkeypatch, capsys, *arguments)
    assert code == 2
    assert err.count("\n") == 1 and err.startswith("image_demo.py: ")
    assert message in err


def test_it_runs_as_a_script_from_any_folder(folder):
    script = ROOT / "detection" / "image_demo.py"
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0
    for flag in ("--out", "--device", "--palette", "--score-thr", "--async-test"):
        assert flag in done.stdout


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
    code, _, err = demo(
        tmp_path, monkeypatch, capsys, "film.avi", str(trained_run.config),
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
