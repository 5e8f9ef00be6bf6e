"""``internimage run`` and ``python -m internimage.runtime``: answers, files, mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage import cli
from internimage.runtime import load_model
from internimage.runtime.command import main
from internimage.runtime.sessions import BACKENDS
from tests.internimage.runtime.tiny_files import (
    save_classifier,
    save_detector,
    save_file,
    save_segmentor,
)
from tests.odd_images import write_odd_images

ROOT = Path(__file__).resolve().parents[3]

DETS = np.array(
    [[0, 0, 32, 16, 0.9], [32, 16, 64, 32, 0.8], [3, 3, 9, 9, 0.2], [0, 0, 0, 0, 0]], np.float32
)
LABELS = np.array([2, 0, 1, -1])

WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "cv2", "onnx", "safetensors", "huggingface_hub"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import runpy
runpy.run_module("internimage.runtime", run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a file of each task, a photo, and things that are none."""
    folder = tmp_path_factory.mktemp("run")
    save_classifier(folder / "classifier.onnx")
    save_detector(folder / "detector.onnx", DETS, LABELS)
    save_segmentor(folder / "segmentor.onnx")
    (folder / "photos").mkdir()
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :96, 1], pixels[:, 96:, 2] = 200, 200
    Image.fromarray(pixels).save(folder / "photos" / "a.png")
    Image.fromarray(pixels[:, ::-1].copy()).save(folder / "photos" / "b.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "photos" / "b.jpg").read_bytes()[:700])
    (folder / "empty").mkdir()
    return folder


def run(capsys, *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def answers(capsys, *arguments: str | Path) -> list[dict]:
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    return json.loads(out)["answers"]


def test_without_pytorch_all_tasks_are_answered(folder, tmp_path):
    """In a process of its own: nothing of what is missing may have been imported before."""
    for task in ("classifier", "detector", "segmentor"):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, f"{task}.onnx", "photos/a.png"]
            + ["--json", "--output", str(tmp_path / task), "--threads", "1"],
            cwd=folder, capture_output=True, text=True, timeout=120,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["answers"][0]["image"] == "photos/a.png"
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"a.json", "a.png", "a_labels.png"}


def test_labels_are_those_of_the_scores_best_first(folder, capsys):
    (answer,) = answers(capsys, folder / "classifier.onnx", folder / "photos" / "a.png")
    assert [one["name"] for one in answer["labels"]] == ["bee", "cat", "ant"]
    assert sum(one["score"] for one in answer["labels"]) == pytest.approx(1)
    (answer,) = answers(
        capsys, folder / "classifier.onnx", folder / "photos" / "a.png", "--topk", "1"
    )
    assert [one["index"] for one in answer["labels"]] == [1]


def test_detections_are_in_pixels_of_the_image_above_the_threshold(folder, capsys):
    (answer,) = answers(capsys, folder / "detector.onnx", folder / "photos" / "a.png")
    rows = answer["detections"]
    assert [row["class_name"] for row in rows] == ["cat", "ant"]
    assert [row["bbox"] for row in rows] == [[0, 0, 64, 32], [64, 32, 128, 64]]
    assert rows[0]["mask"]["size"] == [64, 128]
    arguments = [folder / "detector.onnx", folder / "photos" / "a.png", "--score-threshold"]
    assert len(answers(capsys, *arguments, "0.1")[0]["detections"]) == 3
    assert len(answers(capsys, *arguments, "0.1", "--topk", "1")[0]["detections"]) == 1
    assert answers(capsys, *arguments, "0.95")[0]["detections"] == []


def test_a_segmentors_files_are_those_of_internimage_segment(folder, tmp_path, capsys):
    (answer,) = answers(
        capsys, folder / "segmentor.onnx", folder / "photos" / "a.png", "--output", tmp_path
    )
    assert json.loads((tmp_path / "a.json").read_text()) == answer
    assert list(answer) == ["image", "width", "height", "picture", "label_map", "classes"]
    label_map = np.asarray(Image.open(tmp_path / "a_labels.png"))
    assert (label_map[:, :96] == 1).all() and (label_map[:, 96:] == 2).all()
    assert answer["classes"][0] == {
        "label": 1, "class_name": "bee", "pixels": 96 * 64, "share": 0.75
    }  # fmt: skip
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert tuple(picture[5, 5]) == (0, 225, 0)  # half its green, half that of the class


def test_folders_are_read_and_tables_are_for_people(folder, capsys):
    code, out, err = run(capsys, folder / "segmentor.onnx", folder / "photos")
    assert (code, err) == (0, "")
    assert "segmentor.onnx: upernet, segmentation, fp32" in out
    assert "a.png" in out and "b.jpg" in out and "75.0 %  bee" in out
    code, out, _ = run(capsys, folder / "detector.onnx", folder / "photos" / "a.png")
    assert "0.900      0.0     0.0    64.0    32.0  cat" in out
    code, out, _ = run(capsys, folder / "classifier.onnx", folder / "photos" / "a.png")
    assert "1   0.5" in out and "bee" in out


def test_images_of_any_kind_are_what_a_viewer_shows(folder, tmp_path, capsys):
    upright = np.random.default_rng(0).integers(0, 256, (64, 90, 3), dtype=np.uint8)
    shown = write_odd_images(tmp_path, upright)
    files = [path for path in sorted(tmp_path.iterdir()) if path.suffix != ".tif"]
    out = tmp_path / "out"
    answers(capsys, folder / "segmentor.onnx", *files, "--output", out)
    for path in files:
        label_map = np.asarray(Image.open(out / f"{path.stem}_labels.png"))
        assert np.array_equal(label_map, shown[path.stem].argmax(-1)), path


def test_one_image_that_cannot_be_read_costs_the_others_nothing(folder, capsys):
    given = [folder / "cut.jpg", folder / "none.png", folder / "empty", folder / "segmentor.onnx"]
    good = folder / "photos" / "a.png"
    code, out, err = run(capsys, folder / "segmentor.onnx", *given, folder / "f.mp4", good)
    assert code == 2
    assert "75.0 %  bee" in out
    lines = err.splitlines()
    assert len(lines) == 5
    for line, reason in zip(
        lines,
        ["truncated or broken", "expected an existing image file", "expected a folder with images",
         "none that Pillow can read", "got the video"],
        strict=True,
    ):  # fmt: skip
        assert line.startswith("internimage.runtime: ")
        assert reason in line


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.onnx", "expected an ONNX file, got none at"),
        ("photos", "expected an ONNX file, got the folder"),
        ("cut.jpg", "which is none or is truncated"),
        ("plain.onnx", "without their metadata"),
        ("newer.onnx", "format 9, where 1 is the newest known here"),
    ],
)
def test_a_file_that_is_no_exported_model_is_one_line(folder, capsys, name, reason):
    node = save_segmentor(folder / "newer.onnx", format=9)
    assert node.is_file()
    save_file(folder / "plain.onnx", [], [])
    code, out, err = run(capsys, folder / name, folder / "photos" / "a.png")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert reason in err


def test_a_folder_that_cannot_be_made_is_one_line(folder, capsys):
    code, _, err = run(
        capsys, folder / "segmentor.onnx", folder / "photos" / "a.png",
        "--output", folder / "cut.jpg" / "out",
    )  # fmt: skip
    assert code == 2
    assert err.count("\n") == 1
    assert "cut.jpg" in err


def test_an_option_without_effect_warns(folder, capsys):
    photo = folder / "photos" / "a.png"
    _, _, err = run(capsys, folder / "classifier.onnx", photo, "--score-threshold", "0.5")
    assert "warning: --score-threshold has no effect on classification" in err
    _, _, err = run(
        capsys, folder / "segmentor.onnx", photo, "--score-threshold", "0.5", "--topk", "2"
    )
    assert "warning: --score-threshold, --topk has no effect on segmentation" in err


def test_a_threshold_below_what_the_model_reports_warns(folder, capsys):
    path = save_detector(folder / "least.onnx", DETS, LABELS, score_threshold=0.05)
    _, _, err = run(capsys, path, folder / "photos" / "a.png", "--score-threshold", "0.01")
    assert "warning: --score-threshold below 0.05 has no effect" in err
    _, _, err = run(capsys, path, folder / "photos" / "a.png", "--score-threshold", "0.05")
    assert err == ""


def test_a_masks_threshold_may_be_nothing(folder):
    path = save_detector(folder / "all.onnx", DETS, LABELS, mask_threshold=0.0)
    assert load_model(path).mask_threshold == 0
    assert load_model(folder / "detector.onnx").mask_threshold == 0.5
    path = save_detector(folder / "usual.onnx", DETS, LABELS, mask_threshold=None)
    assert load_model(path).mask_threshold == 0.5


@pytest.mark.parametrize("program", ["internimage run", "internimage.runtime"])
def test_ctrl_c_is_one_line(program, folder, capsys, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("internimage.runtime.sessions.importlib.import_module", stop)
    arguments = [str(folder / "segmentor.onnx"), str(folder / "photos" / "a.png")]
    code = main(arguments) if program.endswith("runtime") else cli.main(["run", *arguments])
    assert code == 130
    assert capsys.readouterr() == ("", f"{program}: stopped by SIGINT\n")


def test_a_library_for_a_file_without_the_node_warns(folder, tmp_path, capsys):
    (tmp_path / "lib.so").write_text("no library")
    arguments = [folder / "segmentor.onnx", folder / "photos" / "a.png"]
    for backend in BACKENDS:
        code, _, err = run(
            capsys, *arguments, "--backend", backend, "--library", tmp_path / "lib.so"
        )
        assert (code, err.count("\n")) == (0, 1)
        assert err.startswith("internimage.runtime: warning: open_session: library = ")
        assert "has no effect on " in err and "--operator grid_sample" in err


def test_internimage_run_is_the_same_command(folder, capsys):
    arguments = [str(folder / "segmentor.onnx"), str(folder / "photos" / "a.png"), "--json"]
    assert cli.main(["run", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert cli.main(["run", "none.onnx", "a.png"]) == 2
    assert capsys.readouterr().err.startswith("internimage run: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x"], "expected known flags, got --out x; did you mean --output?"),
        (["--backend", "magic"], "invalid choice: 'magic'"),
        ([], "required: IMAGE"),
    ],
)
def test_flags_that_are_not_its_own_are_one_line(arguments, words, folder, capsys):
    images = [folder / "photos" / "a.png"] if arguments else []
    code, out, err = run(capsys, folder / "classifier.onnx", *images, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
