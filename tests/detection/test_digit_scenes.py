"""From nothing to a detector: scenes, training, scores; DINO and CB-DINO.

That it finds the digits of images and of a film is in ``test_image_demo.py``.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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
