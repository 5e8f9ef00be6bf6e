"""Evaluation by the script: what the checkpoint predicts, and what its flags do."""

from __future__ import annotations

import json
import types
from pathlib import Path

import cv2
import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer

from internimage.integrations.openmmlab.prediction.detector import build_detector
from internimage.integrations.openmmlab.scripts.arguments import parse_test
from internimage.integrations.openmmlab.scripts.box_pictures import BoxPicturesHook
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import heads
from internimage.integrations.openmmlab.scripts.test import main
from internimage.integrations.openmmlab.scripts.test_settings import apply_arguments
from tests.detection.script_runs import CONFIGS, Done, run_script
from tests.detection.tiny_coco import write_config


@pytest.mark.slow
def test_what_the_checkpoint_predicts_is_kept_and_drawn(trained: tuple[Path, Done]):
    """That its scores are the training's is tested on a detector that has some, the digits'."""
    folder, _ = trained
    done = run_script(
        "test.py",
        *("tiny.py", "run/epoch_2.pth", "--work-dir", "tested", "--fuse-conv-bn"),
        *("--out", "tested/all.pkl", "--show-dir", "drawn", "--show-score-thr", "0"),
        folder=folder.parent,
    )
    assert done.code == 0, done.errors
    before = json.loads((folder / "metrics.json").read_text())
    after = json.loads((folder.parent / "tested" / "metrics.json").read_text())
    assert after.pop("checkpoint") == "run/epoch_2.pth"
    assert set(after) == set(before) - {"epoch", "iteration"}
    predictions = mmengine.load(folder.parent / "tested" / "all.pkl")
    assert [sample["img_id"] for sample in predictions] == [1, 2, 3]
    detector = build_detector(str(folder / "epoch_2.pth"), config=str(folder.parent / "tiny.py"))
    for sample in predictions:
        found = sample["pred_instances"]
        expected = detector.detect(
            cv2.imread(str(folder.parent / sample["img_path"])), score_threshold=0
        )
        assert len(expected) > 3
        for key in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(found[key], expected[key])
        assert len(found["masks"]) == len(expected)
    pictures = sorted((folder.parent / "drawn").rglob("*.png"))
    assert [path.name for path in pictures] == ["000.png", "001.png", "002.png"]
    assert cv2.imread(str(pictures[0])) is not None
    # The tiny model has no batch norm.
    assert "warning: --fuse-conv-bn has no effect" in done.errors


WRONG = {
    "no checkpoint": ([], "one CHECKPOINT behind CONFIG, got none"),
    "two": (["a.pth", "--checkpoint", "b.pth"], "got a.pth and b.pth"),
    "none there": (["no.pth"], "an existing checkpoint, got no.pth"),
    "measure": (["a.pth", "--eval", "bbx"], "--eval bbox or proposal or proposal_fast or segm"),
    "dump": (["a.pth", "--out", "all.json"], "--out *.pkl, got all.json"),
    "augmentation": (["a.pth", "--tta"], "expected tta_model in"),
    "collect": (["a.pth", "--gpu-collect", "--tmpdir", "x"], "one of --gpu-collect and --tmpdir"),
    "no scores": (["a.pth", "--format-only", "--eval", "bbox"], "one of --format-only"),
    "GPUs": (["a.pth", "--gpu-ids", "0", "1"], "dist_test.sh CONFIG GPUS"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_wrong_input_is_one_line_and_exit_code_2(name: str, tiny_folder: Path, capsys):
    arguments, expected = WRONG[name]
    assert main("test.py", CONFIGS, [str(tiny_folder / "tiny.py"), *arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert line.startswith("test.py: error: ")
    assert expected in line


def settle(tiny_folder: Path, *arguments: str, more: str = "") -> Config:
    """The tiny config with what the flags of test.py make of it."""
    path = write_config(tiny_folder / "settled.py", tiny_folder / "data", more)
    args = parse_test("test.py", [str(path), "some.pth", *arguments])
    config = read_config(path)
    apply_arguments(config, args)
    return config


def test_format_only_writes_files_for_a_server(tiny_folder: Path):
    metric = settle(tiny_folder, "--format-only", "--work-dir", "w").test_evaluator[0]
    assert (metric["format_only"], metric["outfile_prefix"]) == (True, "w/results")


def test_format_only_needs_a_metric_that_can(tiny_folder: Path):
    with pytest.raises(ValueError, match=r"--format-only, got VOCMetric"):
        settle(
            tiny_folder,
            "--format-only",
            more="test_evaluator = dict(_delete_=True, type='VOCMetric')\n",
        )


def test_measures_and_options_reach_the_metric(tiny_folder: Path):
    metric = settle(tiny_folder, "--eval", "bbox", "--eval-options", "classwise=False")
    assert metric.test_evaluator["metric"] == ["bbox"]
    assert metric.test_evaluator["classwise"] is False


def test_results_are_gathered_as_asked(tiny_folder: Path):
    by_gpu = settle(tiny_folder, "--gpu-collect").test_evaluator
    by_folder = settle(tiny_folder, "--tmpdir", "/shared").test_evaluator
    assert by_gpu["collect_device"] == "gpu"
    assert (by_folder["collect_device"], by_folder["collect_dir"]) == ("cpu", "/shared")


def test_augmentation_wraps_the_model_and_changes_the_pipeline(tiny_folder: Path):
    more = "tta_model = dict(type='DetTTAModel')\ntta_pipeline = [dict(type='LoadImageFromFile')]\n"
    more += "model = dict(roi_head=dict(mask_head=None))\n"
    config = settle(tiny_folder, "--tta", more=more)
    assert config.model["type"] == "DetTTAModel"
    assert config.model["module"]["type"] == "MaskRCNN"
    assert [key for key, _ in heads(config)] == ["model.roi_head.bbox_head"]
    assert config.test_dataloader.dataset.pipeline == [{"type": "LoadImageFromFile"}]


def test_masks_cannot_be_augmented(tiny_folder: Path):
    more = "tta_model = dict(type='DetTTAModel')\ntta_pipeline = []\n"
    with pytest.raises(ValueError, match=r"boxes alone for --tta, got \S*settled.py with a mask_h"):
        settle(tiny_folder, "--tta", more=more)


def test_a_moving_average_is_not_loaded_twice(tiny_folder: Path):
    more = "custom_hooks = [dict(type='EMAHook'), dict(type='EmptyCacheHook')]\n"
    config = settle(tiny_folder, more=more)
    assert [hook["type"] for hook in config.custom_hooks] == ["EmptyCacheHook"]


def test_pictures_keep_the_sub_folders_of_their_images(tiny_folder: Path):
    config = settle(tiny_folder, "--show-dir", "drawn")
    settings = config.default_hooks.visualization
    assert settings["type"] == "BoxPicturesHook"
    (images,) = settings["image_dirs"]
    Visualizer.get_instance("of any pictures")  # the hook asks for the last one
    hook = BoxPicturesHook(
        draw=True, test_out_dir=str(tiny_folder / "drawn"), image_dirs=[tiny_folder]
    )
    drawn = []
    hook._visualizer = types.SimpleNamespace(
        add_datasample=lambda *_, out_file, **__: drawn.append(out_file)
    )
    picture = next(Path(images).iterdir()).read_bytes()
    samples = []
    for name in ("a/1.png", "b/1.png"):
        (tiny_folder / name).parent.mkdir()
        (tiny_folder / name).write_bytes(picture)
        samples.append(types.SimpleNamespace(img_path=str(tiny_folder / name)))
    runner = types.SimpleNamespace(work_dir="w", timestamp="t")
    hook.after_test_iter(runner, 0, {}, samples)
    assert drawn == [str(tiny_folder / "drawn" / name) for name in ("a/1.png", "b/1.png")]


def test_a_threshold_for_no_picture_warns(tiny_folder: Path):
    with pytest.warns(UserWarning, match="--show-score-thr has no effect"):
        settle(tiny_folder, "--show-score-thr", "0.5")
