"""The subcommand ``internimage detect``, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from internimage import cli
from internimage.integrations.openmmlab.prediction.detector import build_detector
from internimage.integrations.openmmlab.prediction.video import (
    VideoWriter,
    read_facts,
    read_frames,
)
from tests.detection.tiny_detectors import NAMES, THRESHOLD, save_tiny_detector, tiny_config
from tests.odd_images import write_odd_images

WITHOUT_OPENMMLAB = """
import sys
sys.modules["{package}"] = None
from internimage.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a checkpoint, photos, a film, and things that are neither."""
    folder = tmp_path_factory.mktemp("detect")
    save_tiny_detector(tiny_config(folder), folder / "model.pth")
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8), (120, 90))
    (folder / "photos").mkdir()
    Image.fromarray(pixels).save(folder / "photos" / "a.png")
    Image.fromarray(pixels[:, ::-1].copy()).save(folder / "photos" / "b.jpg", quality=95)
    (folder / "photos" / "notes.txt").write_text("no image\n")
    writer = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for index in range(5):
        writer.write(cv2.resize(np.roll(pixels, 7 * index, axis=1), (64, 48)))
    writer.release()
    (folder / "empty").mkdir()
    (folder / "text.jpg").write_text("no image\n")
    (folder / "cut.jpg").write_bytes((folder / "photos" / "b.jpg").read_bytes()[:900])
    (folder / "text.mp4").write_text("no film\n")
    return folder


def detect(folder, capsys, *arguments: str, output: Path) -> tuple[int, str, str]:
    """Run in this process, which is ten times faster than one of its own."""
    code = cli.main(
        ["detect", *arguments, "--checkpoint", str(folder / "model.pth"), "--output", str(output),
         "--score-threshold", str(THRESHOLD)]
    )  # fmt: skip
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def expected(folder: Path, pixels: np.ndarray) -> list[dict]:
    """What the detector says about an image of red, green and blue."""
    detector = build_detector(folder / "model.pth")
    found = detector.detect(np.ascontiguousarray(pixels[..., ::-1]), score_threshold=THRESHOLD)
    return json.loads(json.dumps([one.__dict__ for one in detector.describe(found)]))


# --------------------------------------------------------------------------------------------------
# images


@pytest.mark.slow
def test_an_image_leaves_a_picture_and_its_detections(folder, tmp_path):
    """In a process of its own: nothing but JSON may be on its standard output."""
    arguments = ["detect", "photos/a.png", "--checkpoint", "model.pth", "--output", str(tmp_path)]
    arguments += ["--score-threshold", str(THRESHOLD), "--topk", "4", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "internimage.cli", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},  # sums round alike
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    pixels = np.asarray(Image.open(folder / "photos" / "a.png"))
    wanted = expected(folder, pixels)[:4]
    assert len(wanted) == 4
    (answer,) = printed.pop("answers")
    assert printed == {
        "checkpoint": "model.pth", "config": "from the checkpoint", "class_names": list(NAMES),
        "tta": False, "score_threshold": THRESHOLD, "topk": 4,
    }  # fmt: skip
    assert answer == json.loads((tmp_path / "a.json").read_text())
    assert answer["image"] == "photos/a.png"
    assert (answer["width"], answer["height"]) == (120, 90)
    assert answer["detections"] == wanted
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == pixels.shape
    assert (picture != pixels).any()


def test_a_folder_is_all_of_its_images_and_the_table_has_a_row_a_detection(
    folder, tmp_path, capsys
):
    code, out, err = detect(folder, capsys, str(folder / "photos"), output=tmp_path)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.json", "a.png", "b.jpg", "b.json",
    ]  # fmt: skip
    for name in "ab":
        answer = json.loads((tmp_path / f"{name}.json").read_text())
        part = out.partition(f"{answer['image']} -> {answer['picture']}\n")[2].partition("\n\n")[0]
        rows = [line.split() for line in part.splitlines()[1:]]
        assert [row[-1] for row in rows] == [one["class_name"] for one in answer["detections"]]
        assert [float(row[0]) for row in rows] == pytest.approx(
            [one["score"] for one in answer["detections"]], abs=6e-4
        )
        assert len(rows) > 3


def test_what_an_image_file_means_decides_not_its_bytes(folder, tmp_path, capsys):
    """Turned by EXIF, 16-bit, with transparency, with a palette: the pixels that a viewer shows."""
    upright = np.asarray(Image.open(folder / "photos" / "a.png"))
    shown = write_odd_images(tmp_path, upright)
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    code, _, err = detect(folder, capsys, *files, output=tmp_path / "out")
    assert (code, err) == (0, "")
    for name, pixels in shown.items():
        answer = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert (answer["width"], answer["height"]) == (120, 90), name
        assert answer["detections"] == expected(folder, pixels), name
        assert len(answer["detections"]) > 3
    assert Image.open(tmp_path / "out" / "palette.png").size == (120, 90)  # no GIF: 256 colours


# --------------------------------------------------------------------------------------------------
# videos


def test_a_video_leaves_an_annotated_video_and_a_line_a_frame(folder, tmp_path, capsys):
    code, out, err = detect(folder, capsys, str(folder / "film.avi"), output=tmp_path)
    assert (code, err) == (0, "")
    frames = list(read_frames(folder / "film.avi"))
    rows = [json.loads(line) for line in (tmp_path / "film.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["time"] for row in rows] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    for row, frame in zip(rows, frames, strict=True):
        assert row["detections"] == expected(folder, frame[..., ::-1])
    total = sum(len(row["detections"]) for row in rows)
    assert f"film.avi: 5 frames, {total} detections" in out
    facts = read_facts(tmp_path / "film.mp4")
    assert (facts.width, facts.height, facts.fps, facts.num_frames) == (64, 48, 5.0, 5)
    detector = build_detector(folder / "model.pth")
    pictures = [
        detector.draw(frame, detector.detect(frame, score_threshold=THRESHOLD)) for frame in frames
    ]
    # Compressed, so not equal; but nearer to its own picture than to another's or the bare frame.
    for index, film_frame in enumerate(read_frames(tmp_path / "film.mp4")):
        distances = [np.abs(film_frame.astype(int) - picture).mean() for picture in pictures]
        assert int(np.argmin(distances)) == index
        assert distances[index] < 0.5 * np.abs(film_frame.astype(int) - frames[index]).mean()


def test_frames_of_odd_sizes_keep_their_last_row_and_column(tmp_path):
    """The codec knows even sizes alone, and would cut them off."""
    frame = np.zeros((33, 21, 3), np.uint8)
    frame[-1] = frame[:, -1] = 255
    with VideoWriter(tmp_path / "odd.mp4", 10) as writer:
        writer.write(frame)
    (read,) = read_frames(tmp_path / "odd.mp4")
    assert read.shape == (34, 22, 3)
    assert read[:30, :18].mean() < 60
    assert read[32:].mean() > 150 and read[:, 20:].mean() > 150


def test_frames_are_streamed_one_at_a_time(folder, tmp_path, capsys, monkeypatch):
    """A long film must not have to fit into the memory."""
    import internimage.integrations.openmmlab.prediction.files as files

    order: list[str] = []

    def frames(path):
        for frame in read_frames(path):
            order.append("read")
            yield frame

    original = files.VideoWriter.write
    monkeypatch.setattr(files, "read_frames", frames)
    monkeypatch.setattr(
        files.VideoWriter,
        "write",
        lambda self, frame: (order.append("write"), original(self, frame)),
    )
    code, _, _ = detect(folder, capsys, str(folder / "film.avi"), output=tmp_path)
    assert code == 0
    assert order == ["read", "write"] * 5


def test_a_video_that_ends_early_keeps_what_was_there_and_says_so(folder, tmp_path, capsys):
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for index in range(20):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()
    content = whole.read_bytes()
    cut = tmp_path / "cut.avi"
    # Every frame of an AVI starts with this mark: the tenth one and all behind it go.
    cut.write_bytes(b"00dc".join(content.split(b"00dc")[:10]))
    code, _, err = detect(folder, capsys, str(cut), output=tmp_path / "out")
    assert code == 2
    assert err.count("\n") == 1
    assert "expected 20 frames as the header says, got" in err
    rows = (tmp_path / "out" / "cut.jsonl").read_text().splitlines()
    assert 5 <= len(rows) <= 10
    assert len(list(read_frames(tmp_path / "out" / "cut.mp4"))) == len(rows)


# --------------------------------------------------------------------------------------------------
# mistakes


def test_each_bad_input_is_one_line_and_the_others_are_done(folder, tmp_path, capsys):
    bad = {
        "none.png": "expected an existing image file, got",
        "none.mp4": "expected an existing video file, got",
        "empty": "expected a folder with images or videos, got",
        "text.jpg": "which is none that Pillow can read",
        "cut.jpg": "truncated or broken",
        "text.mp4": "which is none that OpenCV can read",
    }
    files = [str(folder / name) for name in [*bad, "photos/a.png"]]
    code, out, err = detect(folder, capsys, *files, "--json", output=tmp_path / "out")
    assert code == 2
    lines = err.splitlines()
    assert len(lines) == len(bad)
    for line, (name, message) in zip(lines, bad.items(), strict=True):
        assert line.startswith("internimage detect: ")
        assert message in line and name in line
    answers = json.loads(out)["answers"]
    assert ["error" in answer for answer in answers] == [True] * len(bad) + [False]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.png"]


def test_nothing_that_was_given_is_replaced(folder, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes((folder / "photos" / "a.png").read_bytes())
    before = photo.read_bytes()
    code, _, err = detect(folder, capsys, str(photo), output=tmp_path)
    assert code == 2
    assert "expected an output folder in which nothing of the input would be replaced" in err
    assert photo.read_bytes() == before
    assert list(tmp_path.iterdir()) == [photo]


def test_images_of_one_name_do_not_write_over_each_other(folder, tmp_path, capsys):
    for name in ("x/a.png", "y/a.png", "y/a.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(folder / "photos" / "a.png").save(tmp_path / name)
    files = [str(tmp_path / name) for name in ("x/a.png", "y/a.png", "y/a.gif")]
    code, _, err = detect(folder, capsys, *files, output=tmp_path / "out")
    assert code == 2
    assert err.count("\n") == 1
    assert f"expected inputs with names of their own, got {files[0]} and {files[1]}" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.gif.json", "a.gif.png", "a.png", "a.png.json",
    ]  # fmt: skip


BAD = {
    "no checkpoint file": (["--checkpoint", "none.pth"], "got none.pth"),
    "a text as checkpoint": (["--checkpoint", "text.jpg"], "text.jpg"),
    "no config file": (["--config", "none.py"], "expected a config file, got none at none.py"),
    "an unknown device": (
        ["--device", "warp:0"],
        "expected a device of this machine, got --device warp:0",
    ),
    "settings without a config": (["--cfg-options", "a=1"], "expected a config to override"),
    "no pair": (["--config", "config.py", "--cfg-options", "a"], "expected KEY=VALUE behind"),
    "no augmentation": (["--tta"], "expected tta_model and tta_pipeline for --tta"),
    "a file as folder": (["--output", "text.jpg"], "text.jpg"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(kind, folder, tmp_path, capsys, monkeypatch):
    more, message = BAD[kind]
    monkeypatch.chdir(folder)
    arguments = ["detect", "photos/a.png", "--checkpoint", "model.pth", "--output", str(tmp_path)]
    code = cli.main([*arguments, *more])
    captured = capsys.readouterr()
    assert (code, captured.err.count("\n")) == (2, 1)
    assert captured.err.startswith("internimage detect: ")
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_setting_without_effect_is_one_line_and_warnings_of_libraries_are_none(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    shown = warnings.showwarning
    more = ["--config", "config.py", "--cfg-options", "model.test_cfg.rpn.nms_prex=3"]
    code, _, err = detect(folder, capsys, "photos/a.png", *more, output=tmp_path)
    assert code == 0
    assert err == (
        "internimage detect: warning: --cfg-options adds model.test_cfg.rpn.nms_prex to the config"
        "; did you mean nms_pre?\n"
    )
    assert warnings.showwarning is shown


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "much"])
def test_a_threshold_is_a_number_from_0_to_1(text, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["detect", "a.png", "--checkpoint", "m.pth", "--output", "out",
                  f"--score-threshold={text}"])  # fmt: skip
    assert caught.value.code == 2
    assert f"expected a number from 0 to 1, got {text}" in capsys.readouterr().err


def test_a_classifier_given_as_a_detector_is_called_one(
    folder, tmp_path, filled_model, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    torch.save(filled_model("internimage_test_t").state_dict(), tmp_path / "classifier.pth")
    code = cli.main(["detect", "photos/a.png", "--config", "config.py", "--checkpoint",
                     str(tmp_path / "classifier.pth"), "--output", str(tmp_path)])  # fmt: skip
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert "got a classifier in" in err


@pytest.mark.slow
@pytest.mark.parametrize("package", ["mmengine", "mmcv.ops"])
def test_without_openmmlab_the_line_says_how_to_install_it(package, folder, tmp_path):
    program = WITHOUT_OPENMMLAB.format(package=package)
    done = subprocess.run(
        [sys.executable, "-c", program, "detect", "photos/a.png", "--checkpoint", "model.pth",
         "--output", str(tmp_path)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "expected OpenMMLab" in done.stderr
    assert "make setup-all" in done.stderr and "tools/build_mmcv.py" in done.stderr
