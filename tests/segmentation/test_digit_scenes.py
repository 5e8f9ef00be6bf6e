"""From nothing to a segmentor: scenes, training, scores; Mask2Former.

That it finds the digits of an image is in ``test_image_demo.py``.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from tests.script_runs import ROOT, run_script

CONFIGS = ROOT / "segmentation" / "configs" / "digit_scenes"


@pytest.mark.parametrize("name", ["upernet", "mask2former"])
def test_the_views_of_several_sizes_are_of_these_sizes(name: str, tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((128, 128, 3), np.uint8))
    config = Config.fromfile(CONFIGS / f"{name}_internimage_n.py")
    init_default_scope(config.default_scope)
    load, views = config.tta_pipeline
    views["transforms"] = [views["transforms"][0], [{"type": "PackSegInputs"}]]
    made = Compose([load, views])({"img_path": str(tmp_path / "a.png"), "seg_fields": []})
    assert [tuple(image.shape[1:]) for image in made["inputs"]] == [
        (96, 96),
        (128, 128),
        (160, 160),
    ]


@pytest.mark.slow
def test_upernet_learns_the_scenes(trained_segmentor):
    metrics = trained_segmentor.read("metrics.json")
    assert metrics["mIoU"] >= 0.75
    assert metrics["mAcc"] >= metrics["mIoU"]
    assert metrics["aAcc"] >= 0.9
    history = trained_segmentor.read("history.json")
    steps = [step for step, _ in history["scores"]]
    assert len(steps) >= 3 and steps == sorted(steps)
    losses = [value for _, value in history["loss"]]
    assert losses[-1] < losses[0] / 2
    with Image.open(trained_segmentor.folder / "curves.png") as picture:
        picture.load()
        assert min(picture.size) > 200
        darkest, lightest = picture.convert("L").getextrema()
        assert lightest - darkest > 100  # something is drawn


def evaluate(trained_segmentor, folder: Path, *flags: str) -> dict[str, float]:
    """Returns the scores of ``test.py`` on the trained segmentor."""
    done = run_script(
        *("segmentation/test.py", str(trained_segmentor.config)),
        *(str(trained_segmentor.checkpoint), "--work-dir", str(folder), *flags),
        folder=folder,
    )
    assert done.code == 0, done.errors[-4000:]
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_the_evaluation_gives_the_scores_of_the_training(trained_segmentor, tmp_path: Path):
    again = evaluate(
        trained_segmentor,
        tmp_path,
        *("--show-dir", str(tmp_path / "drawn")),
        *("--cfg-options", trained_segmentor.data_option),
    )
    metrics = trained_segmentor.read("metrics.json")
    for name in ("mIoU", "mAcc", "aAcc"):
        assert again[name] == pytest.approx(metrics[name], abs=2e-3)
    assert len(list((tmp_path / "drawn").rglob("*.png"))) == 100


@pytest.mark.slow
def test_windows_and_several_sizes_find_the_digits_as_well(trained_segmentor, tmp_path: Path):
    score = trained_segmentor.read("metrics.json")["mIoU"]
    windows = "model.test_cfg=dict(mode='slide',crop_size=(96,96),stride=(32,32))"
    options = ("--cfg-options", trained_segmentor.data_option)
    (tmp_path / "windows").mkdir()
    slid = evaluate(trained_segmentor, tmp_path / "windows", *options, windows)
    # A window's edge cuts digits in two: some is lost, and most is found.
    assert score - 0.2 < slid["mIoU"] < 1 and slid["mIoU"] != score
    (tmp_path / "sizes").mkdir()
    averaged = evaluate(trained_segmentor, tmp_path / "sizes", "--tta", *options)
    assert score - 0.1 < averaged["mIoU"] < 1 and averaged["mIoU"] != score


@pytest.mark.slow
def test_the_loss_of_mask2former_falls_in_a_hundred_steps(digit_scenes, tmp_path: Path):
    done = run_script(
        *("segmentation/train.py", str(CONFIGS / "mask2former_internimage_n.py")),
        *("--work-dir", str(tmp_path / "run"), "--no-validate", "--seed", "0"),
        *("--cfg-options", f"data_root={digit_scenes}"),
        folder=tmp_path,
    )
    assert done.code == 0, done.errors[-4000:]
    history = json.loads((tmp_path / "run" / "history.json").read_text())["loss"]
    assert history[-1][0] == 100
    # A point is the mean of ten steps.
    assert history[-1][1] < 0.75 * history[0][1]
