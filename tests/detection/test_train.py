"""Training by the script: what a run leaves, and what wrong input ends it with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import pytest

from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from internimage.integrations.openmmlab.scripts.train import main
from tests.detection.script_runs import CONFIGS, Done, run_script
from tests.detection.tiny_coco import CLASSES

NUM_STEPS = 16


def test_metrics_are_those_of_the_last_evaluation(trained: tuple[Path, Done]):
    folder, done = trained
    metrics = json.loads((folder / "metrics.json").read_text())
    last = done.printed.rpartition("Epoch(val) [2]")[2]
    for name in ("bbox_mAP", "segm_mAP"):
        (printed,) = re.findall(rf"coco/{name}: (-?\d\.\d+)", last)
        assert metrics[name] == pytest.approx(float(printed), abs=1e-3)
        assert 0 <= metrics[name] <= 1
    assert (metrics["epoch"], metrics["iteration"]) == (2, NUM_STEPS)


def test_curves_are_drawn_over_the_whole_run(trained: tuple[Path, Done]):
    folder, done = trained
    history = json.loads((folder / "history.json").read_text())
    losses = [float(x) for x in re.findall(r"Epoch\(train\).* loss: (\d+\.\d+)", done.printed)]
    assert len(losses) == NUM_STEPS
    assert [step for step, _ in history["loss"]] == [10, NUM_STEPS]
    expected = (sum(losses[:10]) / 10, sum(losses[10:]) / 6)
    assert [loss for _, loss in history["loss"]] == pytest.approx(expected, abs=1e-3)
    assert [step for step, _ in history["scores"]] == [8, 16]
    picture = cv2.imread(str(folder / "curves.png"))
    assert picture.shape[1] > picture.shape[0] > 300
    assert len(set(picture.reshape(-1, 3)[::7].sum(axis=1).tolist())) > 20  # not an empty page


def test_checkpoints_say_what_they_were_trained_on(trained: tuple[Path, Done]):
    folder, _ = trained
    names = {path.name for path in folder.glob("*.pth")}
    assert {"epoch_1.pth", "epoch_2.pth"} < names
    checkpoint = read_checkpoint(folder / "epoch_2.pth")
    assert checkpoint["meta"]["dataset_meta"]["classes"] == CLASSES
    assert (folder / "last_checkpoint").read_text().endswith("epoch_2.pth")
    assert not list(folder.rglob(".*"))  # no half-written file is left


@pytest.mark.slow
def test_an_earlier_run_is_set_aside(trained: tuple[Path, Done], tmp_path: Path):
    folder, _ = trained
    shutil.copy(folder.parent / "tiny.py", tmp_path)
    shutil.copy(folder / "epoch_1.pth", tmp_path / "start.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tiny.py").write_text("# the earlier run's")
    for name in ("epoch_2.pth", "last_checkpoint", "metrics.json"):
        shutil.copy(folder / name, tmp_path / "run")
    before = (folder / "epoch_2.pth").read_bytes()
    done = run_script(
        "train.py",
        *("tiny.py", "--work-dir", "run", "--no-validate", "--seed", "5"),
        *("--load-from", "start.pth"),  # weights that a fine-tuning starts from
        *("--cfg-options", "train_cfg.max_epochs=1", "default_hooks.checkpoint.interval=2"),
        folder=tmp_path,
    )
    assert done.code == 0, done.errors
    (aside,) = (tmp_path / "run").glob("before_*")
    assert {path.name for path in aside.iterdir()} == {
        "epoch_2.pth",
        "last_checkpoint",
        "metrics.json",
        "tiny.py",
    }
    assert (aside / "tiny.py").read_text() == "# the earlier run's"
    assert "max_epochs=1" in (tmp_path / "run" / "tiny.py").read_text()
    assert (aside / "epoch_2.pth").read_bytes() == before
    assert str(aside.name) in done.printed
    (found,) = re.findall(r"(\d+) of (\d+) tensors from start.pth\n", done.printed)
    assert found[0] == found[1]
    assert not (tmp_path / "run" / "metrics.json").exists()  # --no-validate
    assert read_checkpoint(tmp_path / "run" / "epoch_1.pth")["meta"]["seed"] == 5


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_with_one_line(tiny_folder: Path):
    done = run_script(
        "train.py",
        *("tiny.py", "--work-dir", "diverged", "--amp"),
        *("--cfg-options", "optim_wrapper.optimizer.lr=1e20", "param_scheduler=None"),
        folder=tiny_folder,
    )
    assert done.code == 2
    assert done.errors.count("error:") == 1
    (line,) = [line for line in done.errors.splitlines() if "error:" in line]
    assert "5 iterations in a row" in line
    assert re.search(r"first in iteration \d+ in .*loss_cls", line)
    assert not list((tiny_folder / "diverged").glob("*.pth"))
    (log,) = (tiny_folder / "diverged").rglob("*.log")
    assert "DivergedError: expected a finite loss" in log.read_text()  # and where it came from


@pytest.mark.slow
def test_a_broken_image_is_named(tiny_folder: Path, tmp_path: Path):
    shutil.copytree(tiny_folder / "data", tmp_path / "data")
    for image in (tmp_path / "data" / "train").iterdir():
        image.write_bytes(b"no image")
    done = run_script(
        "train.py",
        str(tiny_folder / "tiny.py"),
        *("--work-dir", "run", "--cfg-options", f"data_root={tmp_path / 'data'}"),
        "train_dataloader.num_workers=1",
        folder=tmp_path,
    )
    assert done.code == 2
    (line,) = [line for line in done.errors.splitlines() if "error:" in line]
    assert re.search(r"train.py: error: .*data/train/00\d\.png", line)


WRONG = {
    "a flag": (["--no-validat"], "--no-validat; did you mean --no-validate"),
    "a key": (["--cfg-options", "model.backbon.arch=t"], "did you mean backbone"),
    "a key's first word": (["--cfg-options", "mdel.type=x"], "did you mean model"),
    "a key of mmdet 2": (["--cfg-options", "data.samples_per_gpu=1"], "train_dataloader"),
    "an index": (["--cfg-options", "train_pipeline.9.type=x"], "below 5 in train_pipeline"),
    "no value": (["--cfg-options", "model"], "KEY=VALUE behind --cfg-options, got model"),
    "annotations": (["--cfg-options", "train_ann_file=no.json"], "train_dataloader.dataset.ann_f"),
    "validation": (["--cfg-options", "val_ann_file=no.json"], "val_dataloader.dataset.ann_file"),
    "images": (["--cfg-options", "train_img_prefix=no/"], "dataset.data_prefix.img = "),
    "the data": (["--cfg-options", "data_root=/no"], "/no/annotations/train.json"),
    "a class": (["--cfg-options", "classes=('disc','rod')"], "'rod' is not among disc, bar"),
    "the order": (["--cfg-options", "classes=('bar','disc')"], "order of classes"),
    "a class twice": (["--cfg-options", "classes=('disc','disc')"], "got disc twice"),
    "num_classes": (
        ["--cfg-options", "model.roi_head.bbox_head.num_classes=7"],
        "bbox_head.num_classes = 2, the number of classes (disc, bar), got 7",
    ),
    "GPUs": (["--gpus", "8"], "dist_train.sh CONFIG GPUS"),
    "a launcher": (["--launcher", "pytorch"], "dist_train.sh and dist_test.sh start the ranks"),
    "a file": (["--work-dir", __file__], "expected a folder for --work-dir, got the file"),
    "weights": (["--load-from", "no.pth"], "an existing checkpoint, got no.pth"),
    "both": (["--resume", "a.pth", "--load-from", "b.pth"], "one of --resume and --load-from"),
    "a batch": (
        ["--auto-scale-lr", "--cfg-options", "auto_scale_lr=None"],
        "auto_scale_lr.base_batch_size",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_wrong_input_is_one_line_and_exit_code_2(name: str, tiny_folder: Path, tmp_path, capsys):
    arguments, expected = WRONG[name]
    work_dir = ["--work-dir", str(tmp_path / "run")]
    code = main("train.py", CONFIGS, [str(tiny_folder / "tiny.py"), *work_dir, *arguments])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert code == 2
    assert line.startswith("train.py: error: ")
    assert expected in line
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_classes_of_a_data_set_and_of_the_model_must_agree(tiny_folder: Path, tmp_path, capsys):
    text = (tiny_folder / "tiny.py").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("classes")]
    config = tmp_path / "tiny.py"
    more = f"\ntrain_dataloader['dataset']['metainfo'] = dict(classes={CLASSES})\n"
    config.write_text("\n".join(lines) + more)
    assert main("train.py", CONFIGS, [str(config), "--work-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "model.roi_head.bbox_head.num_classes = 2" in said
    assert "train_dataloader.dataset (disc, bar), got 80" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("model = dict(", "'(' was never closed in line 1"),
        ("_base_ = ['no.py']", "no.py"),
        ("model = dict(type=nothing)", "nothing"),
        ("custom_imports = dict(imports=['no_such_module'])", "no_such_module"),
        ("data = dict(samples_per_gpu=2)\nmodel = dict()", "data -> train_dataloader"),
        ("model = dict(type='X')", "expected train_dataloader in"),
        ("lr_config = dict(policy='step')", "lr_config -> param_scheduler"),
        ("_base_ = '{configs}/coco/NAME.py'\nrunner = dict(max_epochs=1)", "runner -> train_cfg"),
        ("train_cfg = dict()\np = [dict(type='MultiScaleFlipAug')]", "MultiScaleFlipAug -> "),
    ],
)
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_a_config_that_cannot_be_read_is_one_line(content, expected, tmp_path: Path, capsys):
    name = "mask_rcnn_internimage_t_fpn_1x_coco.py"
    config = tmp_path / "c.py"
    config.write_text(content.replace("{configs}", str(CONFIGS)).replace("NAME.py", name))
    assert main("train.py", CONFIGS, [str(config)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert str(config) in line
    assert expected in line


@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_an_old_config_has_one_of_its_name_to_use_instead(tmp_path: Path, capsys):
    config = tmp_path / "mask_rcnn_internimage_t_fpn_1x_coco.py"
    config.write_text("_base_ = ['../_base_/datasets/x.py']\noptimizer = dict(type='AdamW')\n")
    assert main("train.py", CONFIGS, [str(config)]) == 2
    said = capsys.readouterr().err
    assert "detection/configs/coco/mask_rcnn_internimage_t_fpn_1x_coco.py, or rename" in said
    assert "optimizer -> optim_wrapper.optimizer" in said
