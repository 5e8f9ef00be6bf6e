"""The subcommand ``internimage segment``, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from internimage import cli
from internimage.integrations.openmmlab.prediction.segmentor import Segmentor, build_segmentor
from internimage.integrations.openmmlab.prediction.video import read_facts, read_frames
from tests.detection import tiny_detectors
from tests.odd_images import write_odd_images
from tests.segmentation.tiny_segmentors import (
    NAMES,
    PALETTE,
    make_pixels,
    save_tiny_segmentor,
    tiny_config,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a checkpoint, photos, a film, and things that are neither."""
    folder = tmp_path_factory.mktemp("segment")
    save_tiny_segmentor(tiny_config(folder), folder / "model.pth")
    rgb = np.ascontiguousarray(make_pixels()[..., ::-1])
    (folder / "photos").mkdir()
    Image.fromarray(rgb).save(folder / "photos" / "a.png")
    Image.fromarray(rgb[:, ::-1].copy()).save(folder / "photos" / "b.jpg", quality=95)
    writer = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for index in range(4):
        writer.write(cv2.resize(np.roll(make_pixels(), 7 * index, axis=1), (64, 48)))
    writer.release()
    (folder / "empty").mkdir()
    (folder / "cut.jpg").write_bytes((folder / "photos" / "b.jpg").read_bytes()[:900])
    return folder


@pytest.fixture(scope="module")
def segmentor(folder) -> Segmentor:
    return build_segmentor(folder / "model.pth")


def segment(folder, capsys, *arguments: str, output: Path) -> tuple[int, str, str]:
    """Run in this process, which is ten times faster than one of its own."""
    checkpoint = str(folder / "model.pth")
    code = cli.main(["segment", *arguments, "--checkpoint", checkpoint, "--output", str(output)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def shares(label_map: np.ndarray) -> list[dict]:
    """What is to be said of a label map, counted here."""
    labels, counts = np.unique(label_map, return_counts=True)
    rows = [
        {"label": int(i), "class_name": NAMES[i], "pixels": int(n), "share": n / label_map.size}
        for i, n in zip(labels, counts, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["pixels"], row["label"]))


@pytest.mark.slow
def test_an_image_leaves_a_picture_its_label_map_and_the_shares_of_its_classes(
    folder, tmp_path, segmentor
):
    """In a process of its own: nothing but JSON may be on its standard output."""
    arguments = ["segment", "photos/a.png", "--checkpoint", "model.pth", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "internimage.cli", *arguments, "--opacity", "0.7", "--json"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},  # sums round alike
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    (answer,) = printed.pop("answers")
    assert printed == {
        "checkpoint": "model.pth", "config": "from the checkpoint", "class_names": list(NAMES),
        "tta": False, "opacity": 0.7,
    }  # fmt: skip
    assert answer == json.loads((tmp_path / "a.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "a_labels.png"]
    image = make_pixels()
    label_map = np.asarray(Image.open(tmp_path / "a_labels.png"))
    assert np.array_equal(label_map, segmentor.segment(image))
    assert len(np.unique(label_map)) > 1
    assert answer == {
        "image": "photos/a.png", "width": 120, "height": 90, "picture": str(tmp_path / "a.png"),
        "label_map": str(tmp_path / "a_labels.png"), "classes": shares(label_map),
    }  # fmt: skip
    picture = np.asarray(Image.open(tmp_path / "a.png")).astype(float)
    blended = 0.3 * image[..., ::-1] + 0.7 * np.array(PALETTE)[label_map]
    assert np.abs(picture - blended).max() <= 1


def test_a_folder_is_all_of_its_images_and_the_table_has_a_row_a_class(folder, tmp_path, capsys):
    code, out, err = segment(folder, capsys, str(folder / "photos"), output=tmp_path)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.json", "a.png", "a_labels.png", "b.jpg", "b.json", "b_labels.png",
    ]  # fmt: skip
    for name in "ab":
        answer = json.loads((tmp_path / f"{name}.json").read_text())
        head = f"{answer['image']} -> {answer['picture']}, {answer['label_map']}\n"
        rows = [line.split() for line in out.partition(head)[2].partition("\n\n")[0].splitlines()]
        assert [row[-1] for row in rows[1:]] == [one["class_name"] for one in answer["classes"]]
        assert [float(row[0]) / 100 for row in rows[1:]] == pytest.approx(
            [one["share"] for one in answer["classes"]], abs=6e-4
        )


def test_what_an_image_file_means_decides_not_its_bytes(folder, tmp_path, capsys, segmentor):
    """Turned by EXIF, 16-bit, with transparency, a palette, CMYK: what a viewer shows."""
    shown = write_odd_images(tmp_path, np.asarray(Image.open(folder / "photos" / "a.png")))
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    code, _, err = segment(folder, capsys, *files, output=tmp_path / "out")
    assert (code, err) == (0, "")
    for name, pixels in shown.items():
        label_map = np.asarray(Image.open(tmp_path / "out" / f"{name}_labels.png"))
        expected = segmentor.segment(np.ascontiguousarray(pixels[..., ::-1]))
        assert np.array_equal(label_map, expected), name


def test_a_video_leaves_a_coloured_video_and_a_line_a_frame(folder, tmp_path, capsys, segmentor):
    code, out, err = segment(folder, capsys, str(folder / "film.avi"), output=tmp_path)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.jsonl", "film.mp4"]
    frames = list(read_frames(folder / "film.avi"))
    label_maps = [segmentor.segment(frame) for frame in frames]
    rows = [json.loads(line) for line in (tmp_path / "film.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3]
    assert [row["time"] for row in rows] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert [row["classes"] for row in rows] == [shares(label_map) for label_map in label_maps]
    facts = read_facts(tmp_path / "film.mp4")
    assert (facts.width, facts.height, facts.fps, facts.num_frames) == (64, 48, 5.0, 4)
    table = [line.split() for line in out.partition("film.jsonl\n")[2].splitlines()[1:]]
    of_all = shares(np.stack(label_maps))
    assert [row[-1] for row in table] == [one["class_name"] for one in of_all]
    assert f"{table[0][0]}" == f"{100 * of_all[0]['share']:.1f}"
    for index, film_frame in enumerate(read_frames(tmp_path / "film.mp4")):
        picture = segmentor.draw(frames[index], label_maps[index])
        # Compressed, so not equal.
        assert np.abs(film_frame.astype(int) - picture).mean() < 15
        assert np.abs(film_frame.astype(int) - frames[index]).mean() > 30


def test_each_bad_input_is_one_line_and_the_others_are_done(folder, tmp_path, capsys):
    bad = {
        "none.png": "expected an existing image file, got",
        "empty": "expected a folder with images or videos, got",
        "cut.jpg": "truncated or broken",
    }
    files = [str(folder / name) for name in [*bad, "photos/a.png"]]
    code, out, err = segment(folder, capsys, *files, "--json", output=tmp_path)
    assert code == 2
    lines = err.splitlines()
    assert len(lines) == len(bad)
    for line, (name, message) in zip(lines, bad.items(), strict=True):
        assert line.startswith("internimage segment: ")
        assert message in line and name in line
    assert ["error" in answer for answer in json.loads(out)["answers"]] == [True] * 3 + [False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "a_labels.png"]


def test_a_label_map_does_not_replace_the_picture_of_another_image(folder, tmp_path, capsys):
    for name in ("a.png", "a_labels.png"):
        Image.open(folder / "photos" / "a.png").save(tmp_path / name)
    files = [str(tmp_path / name) for name in ("a.png", "a_labels.png")]
    code, _, err = segment(folder, capsys, *files, output=tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert f"expected inputs with names of their own, got {files[0]} and {files[1]}" in err
    assert np.asarray(Image.open(tmp_path / "out" / "a_labels.png")).ndim == 2  # the label map


def test_a_palette_by_name_colours_picture_and_label_map(folder, tmp_path, capsys):
    more = ["--palette", "cityscapes", "--opacity", "1"]
    code, _, _ = segment(folder, capsys, str(folder / "photos/a.png"), *more, output=tmp_path)
    assert code == 0
    with Image.open(tmp_path / "a_labels.png") as file:
        coloured = np.asarray(file.convert("RGB"))
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(picture, coloured)
    first_five = {(128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153)}
    assert {tuple(colour) for colour in picture.reshape(-1, 3).tolist()} <= first_five


BAD = {
    "no checkpoint file": (["--checkpoint", "none.pth"], "got none.pth"),
    "a detector": (
        ["--checkpoint", "detector.pth"],
        "expected the checkpoint of a segmentor, got that of a detector in detector.pth; "
        "`internimage detect` takes it",
    ),
    "settings without a config": (["--cfg-options", "a=1"], "expected a config to override"),
    "an old config": (["--config", "old.py"], "mmseg"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(kind, folder, tmp_path, capsys, monkeypatch):
    more, message = BAD[kind]
    monkeypatch.chdir(folder)
    if kind == "a detector":
        (tmp_path / "detector").mkdir()
        path = tiny_detectors.tiny_config(tmp_path / "detector")
        tiny_detectors.save_tiny_detector(path, folder / "detector.pth")
    (folder / "old.py").write_text(
        "model = dict(type='EncoderDecoder', pretrained=None)\n"
        "data = dict(samples_per_gpu=2, test=dict(type='ADE20KDataset'))\n"
        "optimizer = dict(type='AdamW')\nrunner = dict(type='IterBasedRunner')\n"
    )
    out = tmp_path / "out"
    arguments = ["segment", "photos/a.png", "--checkpoint", "model.pth", "--output", str(out)]
    code = cli.main([*arguments, *more])
    captured = capsys.readouterr()
    assert (code, captured.err.count("\n")) == (2, 1)
    assert captured.err.startswith("internimage segment: ")
    assert message in captured.err
    assert not out.exists()


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "much"])
def test_an_opacity_is_a_number_from_0_to_1(text, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["segment", "a.png", "--checkpoint", "m.pth", "--output", "out",
                  f"--opacity={text}"])  # fmt: skip
    assert caught.value.code == 2
    assert f"expected a number from 0 to 1, got {text}" in capsys.readouterr().err


def test_without_mmseg_the_line_says_how_to_install_it(folder, tmp_path, monkeypatch, capsys):
    room = "internimage.integrations.openmmlab.prediction"
    for name in ("segmentor", "segment_files"):
        monkeypatch.delitem(sys.modules, f"{room}.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "mmseg", None)
    code, out, err = segment(folder, capsys, str(folder / "photos"), output=tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected OpenMMLab" in err and "mmseg" in err and "make setup-all" in err
