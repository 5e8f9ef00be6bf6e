"""From nothing to a detector that detects: scenes, training, scores, pictures; DINO and CB-DINO."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "detection" / "configs" / "digit_scenes"
pytestmark = pytest.mark.slow


def run(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_mask_r_cnn_learns_the_scenes(trained_run):
    metrics = trained_run.read("metrics.json")
    assert metrics["bbox_mAP"] >= 0.70
    assert metrics["segm_mAP"] >= 0.70
    history = trained_run.read("history.json")
    assert [step for step, _ in history["scores"]] == [200, 400, 600, 800]
    losses = [value for _, value in history["loss"]]
    assert losses[-1] < losses[0] / 2
    with Image.open(trained_run.folder / "curves.png") as picture:
        picture.load()
        assert min(picture.size) > 200
        darkest, lightest = picture.convert("L").getextrema()
        assert lightest - darkest > 100  # something is drawn


def test_the_evaluation_gives_the_scores_of_the_training(trained_run, tmp_path: Path):
    run(
        *("detection/test.py", trained_run.config, trained_run.checkpoint),
        *("--work-dir", tmp_path, "--cfg-options", trained_run.data_option),
    )
    again = json.loads((tmp_path / "metrics.json").read_text())
    metrics = trained_run.read("metrics.json")
    for name in ("bbox_mAP", "bbox_mAP_50", "segm_mAP", "segm_mAP_50"):
        assert again[name] == pytest.approx(metrics[name], abs=2e-3)


def test_the_demo_finds_the_digits_of_four_scenes(trained_run, tmp_path: Path):
    content = json.loads((trained_run.scenes / "annotations" / "val.json").read_text())
    class_names = {category["id"]: category["name"] for category in content["categories"]}
    chosen = content["images"][:4]
    (tmp_path / "scenes").mkdir()
    for image in chosen:
        shutil.copy(trained_run.scenes / "val" / image["file_name"], tmp_path / "scenes")
    run(
        *("detection/image_demo.py", tmp_path / "scenes", trained_run.config),
        *(trained_run.checkpoint, "--out", tmp_path / "out", "--score-thr", "0.5"),
    )
    num_digits = num_found = 0
    for image in chosen:
        stem = Path(image["file_name"]).stem
        answer = json.loads((tmp_path / "out" / f"{stem}.json").read_text())
        boxes = [(found["class_name"], found["bbox"]) for found in answer["detections"]]
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, width, height = annotation["bbox"]
                own = (x, y, x + width, y + height)
                num_digits += 1
                num_found += any(
                    name == class_names[annotation["category_id"]] and overlap(box, own) > 0.5
                    for name, box in boxes
                )
        with (
            Image.open(tmp_path / "scenes" / image["file_name"]) as scene,
            Image.open(tmp_path / "out" / f"{stem}.png") as picture,
        ):
            assert picture.size == scene.size
            difference = ImageChops.difference(picture.convert("RGB"), scene.convert("RGB"))
            assert difference.getbbox() is not None
    assert num_digits >= 8
    assert num_found >= 0.6 * num_digits


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes of corners x, y, x, y."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@pytest.mark.parametrize(("name", "share"), [("dino", 0.8), ("cb_dino", 0.9)])
def test_the_loss_of_dino_falls_in_fifty_steps(name, share, digit_scenes, tmp_path: Path):
    run(
        *("detection/train.py", CONFIGS / f"{name}_internimage_n.py", "--work-dir", tmp_path),
        *("--no-validate", "--seed", 0, "--cfg-options", f"data_root={digit_scenes}"),
    )
    history = json.loads((tmp_path / "history.json").read_text())["loss"]
    assert history[-1][0] == 50
    # A point is the mean of ten steps.
    assert history[-1][1] < share * history[0][1]
