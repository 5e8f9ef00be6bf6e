"""Whole runs: in this process, as `python train.py`, and under torchrun, as a user starts them."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

from classification.data import build_data
from classification.distributed import Ranks
from classification.evaluation import evaluate
from classification.runs.checkpoint import list_checkpoints, load_state
from classification.runs.records import COLUMNS, weights_sha256
from classification.runs.run import prepare
from classification.train import parse_arguments
from internimage.predict import build_predictor

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "classification" / "train.py"
ONE_RANK = Ranks(0, 1, torch.device("cpu"))
MakeConfig = Callable[..., CfgNode]


def train_here(config: CfgNode) -> dict:
    """Trains in this process; returns the summary."""
    run = prepare(config, ONE_RANK)
    run.train()
    run.close()
    return json.loads((Path(config.OUTPUT) / config.MODEL.NAME / "summary.json").read_text())


def command(*arguments: object, num_ranks: int = 0) -> list[str]:
    """The command line of train.py, under torchrun with ``num_ranks`` of at least one."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"]
    return [sys.executable, *(launcher if num_ranks else []), str(TRAIN), *map(str, arguments)]


def run(*arguments: object, num_ranks: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, num_ranks=num_ranks), capture_output=True, text=True, timeout=300
    )


# ---- what a run leaves


@pytest.mark.slow
def test_a_run_leaves_a_summary_metrics_curves_weights_and_a_checkpoint(make_config: MakeConfig):
    config = make_config("SEED", 3)
    summary = train_here(config)
    folder = Path(config.OUTPUT) / "small"
    assert summary["epochs"] == 2
    assert summary["steps"] == 2 * (1437 // 128)
    assert summary["num_test_images"] == 360
    assert 0 <= summary["top1"] <= summary["top5"] <= 100
    assert summary["train_seconds"] > 0
    assert (summary["seed"], summary["world_size"], summary["weights"]) == (3, 1, "ema")
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == set(COLUMNS)
    assert float(rows[-1]["top1"]) == summary["top1"]
    with Image.open(folder / "curves.png") as image:
        image.verify()
    assert [path.name for path in list_checkpoints(folder)] == ["ckpt_epoch_2.pth"]
    assert (folder / "ckpt_epoch_best.pth").exists()
    assert "epoch 2/2" in (folder / "log_rank0.txt").read_text()
    assert parse_arguments(["--cfg", str(folder / "config.yaml")])[0].SEED == 3


@pytest.mark.slow
def test_the_saved_weights_alone_give_the_accuracy_of_the_summary(make_config: MakeConfig):
    config = make_config()
    summary = train_here(config)
    predictor = build_predictor(checkpoint=Path(config.OUTPUT) / "small" / "model.safetensors")
    assert predictor.class_names == tuple("0123456789")
    assert predictor.preprocessing.image_size == 16
    assert weights_sha256(predictor.model.state_dict()) == summary["weights_sha256"]
    data = build_data(config, ONE_RANK)
    scores = evaluate(predictor.model, data, ONE_RANK)
    assert scores.top1 == summary["top1"]
    assert scores.top5 == summary["top5"]


@pytest.mark.slow
@pytest.mark.parametrize("use_ema", [False, True])
def test_a_checkpoint_to_resume_from_names_its_model_and_classes(
    make_config: MakeConfig, use_ema: bool
):
    shape = ("MODEL.INTERN_IMAGE.DEPTHS", [1, 1, 1, 1], "DATA.BATCH_SIZE", 700)
    config = make_config(*shape, "TRAIN.EPOCHS", 1)
    train_here(config)
    checkpoint = Path(config.OUTPUT) / "small" / "ckpt_epoch_1.pth"
    predictor = build_predictor(checkpoint=checkpoint, use_ema=use_ema)
    assert predictor.class_names == tuple("0123456789")
    assert predictor.preprocessing.image_size == 16
    weights = load_state(checkpoint)["model_ema" if use_ema else "model"]
    assert weights_sha256(predictor.model.state_dict()) == weights_sha256(weights)


@pytest.mark.slow
def test_two_epochs_learn_something(make_config: MakeConfig):
    assert train_here(make_config())["top1"] > 25  # guessing gives 10


@pytest.mark.slow
def test_the_seed_decides_on_the_weights(make_config: MakeConfig, tmp_path: Path):
    def weights(seed: int, name: str) -> str:
        options = ["SEED", seed, "MODEL.NAME", name, "TRAIN.EPOCHS", 1]
        return train_here(make_config(*options))["weights_sha256"]

    first = weights(0, "first")
    assert weights(0, "again") == first
    assert weights(1, "other") != first


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(make_config: MakeConfig):
    unbroken = train_here(make_config("MODEL.NAME", "unbroken", "SAVE_CKPT_NUM", 2))
    folder = Path(make_config().OUTPUT)
    checkpoint = folder / "unbroken" / "ckpt_epoch_1.pth"
    resumed = train_here(make_config("MODEL.NAME", "resumed", "MODEL.RESUME", checkpoint))
    assert resumed["weights_sha256"] == unbroken["weights_sha256"]
    assert resumed["steps"] == unbroken["steps"]
    rows = [(folder / name / "metrics.csv").read_text().splitlines() for name in
            ("unbroken", "resumed")]  # fmt: skip
    # The header, and the epoch before the break, but for the time of its evaluation.
    assert rows[0][0] == rows[1][0]
    assert rows[0][1].rpartition(",")[0] == rows[1][1].rpartition(",")[0]
    assert len(rows[0]) == len(rows[1]) == 3


@pytest.mark.slow
def test_evaluation_and_checkpoints_come_as_often_as_asked(make_config: MakeConfig):
    config = make_config(
        *("TRAIN.EPOCHS", 5, "EVAL_FREQ", 3, "SAVE_FREQ", 2, "SAVE_CKPT_NUM", 9),
        *("DATA.BATCH_SIZE", 700),
    )
    train_here(config)
    folder = Path(config.OUTPUT) / "small"
    names = [path.name for path in list_checkpoints(folder)]
    # Epoch 3 has the best score so far, so its state is kept as well.
    assert names == [f"ckpt_epoch_{epoch}.pth" for epoch in (2, 3, 4, 5)]
    with (folder / "metrics.csv").open(newline="") as stream:
        evaluated = [row["epoch"] for row in csv.DictReader(stream) if row["top1"]]
    assert evaluated == ["3", "5"]


@pytest.mark.slow
def test_settings_of_the_model_reach_it_and_the_file(make_config: MakeConfig):
    config = make_config("MODEL.INTERN_IMAGE.DEPTHS", [1, 1, 1, 1], "DATA.BATCH_SIZE", 700)
    train_here(config)
    predictor = build_predictor(checkpoint=Path(config.OUTPUT) / "small" / "model.safetensors")
    assert predictor.model.depths == (1, 1, 1, 1)


@pytest.mark.slow
def test_recomputing_blocks_changes_nothing_but_memory(make_config: MakeConfig):
    summaries = [
        train_here(make_config("TRAIN.USE_CHECKPOINT", use, "MODEL.NAME", use, "TRAIN.EPOCHS", 1))
        for use in (False, True)
    ]
    assert summaries[0]["weights_sha256"] == summaries[1]["weights_sha256"]


# ---- the command line


def test_flags_set_what_they_are_documented_to_set(small_yaml: Path):
    flags = ["--cfg", small_yaml, "--output", "o", "--batch-size", 7, "--accumulation-steps", 2]
    flags += ["--use-checkpoint", "--save-ckpt-num", 3, "--resume", "r", "--opts", "SEED", 4]
    config, overwrite = parse_arguments([str(flag) for flag in flags])
    assert (config.OUTPUT, config.DATA.BATCH_SIZE, config.SEED) == ("o", 7, 4)
    assert config.TRAIN.ACCUMULATION_STEPS == 2
    assert config.TRAIN.USE_CHECKPOINT is True
    assert (config.SAVE_CKPT_NUM, config.MODEL.RESUME) == (3, "r")
    assert overwrite is False
    assert parse_arguments(["--cfg", str(small_yaml), "--overwrite"])[1] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --cfg"),
        (["--cfg"], "argument --cfg: expected one argument"),
        (["--cfg", "missing.yaml"], "expected an existing YAML file, got missing.yaml"),
        (["--cfg", "YAML", "--ouput", "x"], "got --ouput x; did you mean --output?"),
        (["--cfg", "YAML", "--out", "x"], "expected known flags, got --out x"),
        (["--cfg", "YAML", "--batch-size", "0"], "expected DATA.BATCH_SIZE > 0, got 0"),
        (["--cfg", "YAML", "--batch-size", "2000"], "expected training images of a rank >= "),
        (["--cfg", "YAML", "--resume", "no.pth"], "expected an existing file, got no.pth"),
        (["--cfg", "YAML", "--output", "YAML"], "expected a writable folder"),
        (
            ["--cfg", "YAML", "--opts", "DATA.DATASET", "mnist"],
            "DATA.DATASET one of ['cifar10', 'cifar100', 'digits', ",
        ),
        (
            ["--cfg", "YAML", "--output", "x", "--opts", "TRAIN.EPOCHS"],
            "error: expected KEY VALUE pairs in --opts, got TRAIN.EPOCHS\n",
        ),
        (["--cfg", "YAML", "--resume", "YAML"], "expected a checkpoint (safetensors or PyTorch)"),
        (["--cfg", "YAML", "--opts", "TRAIN.EPOCH", "1"], "did you mean TRAIN.EPOCHS?"),
        (["--cfg", "YAML", "--opts", "MODEL.ARCH", "internimage_q"], "expected a known model"),
        (["--cfg", "YAML", "--opts", "MODEL.INTERN_IMAGE.GROUPS", "[3, 3, 3, 3]"], "expected"),
        (
            ["--cfg", "YAML", "--opts", "MODEL.ARCH", "internimage_test_h", "DATA.IMG_SIZE", "40"],
            "multiples of 32",  # which the first forward pass finds out
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    exit_code_here, small_yaml: Path, tmp_path: Path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    arguments = [str(small_yaml) if text == "YAML" else text for text in arguments]
    assert exit_code_here(*arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("train.py: error: ")
    assert printed.count("\n") == 1


def test_a_disk_that_fails_before_the_training_is_one_line_and_exit_code_2(
    exit_code_here, small_yaml: Path, tmp_path: Path, capsys, monkeypatch
):
    def fail(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("classification.runs.run.make_run_folder", lambda folder: folder)
    monkeypatch.setattr("classification.runs.run.write_atomically", fail)
    assert exit_code_here("--cfg", small_yaml, "--output", tmp_path) == 2
    printed = capsys.readouterr().err
    assert "No space left on device" in printed and printed.count("\n") == 1


@pytest.mark.slow
def test_a_diverging_run_names_the_step_and_the_rate_and_keeps_its_checkpoint(
    exit_code_here, small_yaml: Path, tmp_path: Path, capsys
):
    good = ["--cfg", small_yaml, "--output", tmp_path, "--opts", "TRAIN.EPOCHS", 1]
    assert exit_code_here(*good) == 0
    checkpoint = tmp_path / "small" / "ckpt_epoch_1.pth"
    before = checkpoint.read_bytes()
    capsys.readouterr()
    bad = ["--cfg", small_yaml, "--output", tmp_path, "--resume", checkpoint, "--opts"]
    bad += ["TRAIN.BASE_LR", "1e20", "TRAIN.CLIP_GRAD", 0, "TRAIN.EMA.ENABLE", True]
    assert exit_code_here(*bad) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "the training diverged: loss" in printed
    assert "in epoch 2, step " in printed and "at learning rate " in printed
    assert f"{checkpoint} is kept, the same command goes on from it" in printed
    assert checkpoint.read_bytes() == before


@pytest.mark.slow
def test_a_disk_that_fills_up_is_one_line_and_the_checkpoint_stays(
    exit_code_here, small_yaml: Path, tmp_path: Path, capsys, monkeypatch
):
    class FullDisk:
        """A stream that the disk fills up under."""

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            pass

    real_save, calls = torch.save, []

    def save_once(state: object, stream: BinaryIO) -> None:
        calls.append(stream)
        real_save(state, stream if len(calls) == 1 else FullDisk())

    monkeypatch.setattr(torch, "save", save_once)
    assert exit_code_here("--cfg", small_yaml, "--output", tmp_path) == 2
    printed = capsys.readouterr().err
    folder = tmp_path / "small"
    assert printed == (
        f"train.py: error: cannot write {folder}/ckpt_epoch_2.pth: No space left on device; "
        f"{folder}/ckpt_epoch_1.pth is kept, the same command goes on from it\n"
    )
    assert load_state(folder / "ckpt_epoch_1.pth")["epoch"] == 0
    assert not list(folder.glob(".ckpt*"))


# ---- processes of their own


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("classification/train.py", "train.py"),
        ("classification/evaluate.py", "evaluate.py"),
        ("tools/demo.py", "demo"),
    ],
)
def test_ctrl_c_while_a_script_imports_is_one_line(tmp_path: Path, script: str, name: str):
    # Stands in for PyTorch, and waits in the middle of the import for the signal.
    (tmp_path / "torch.py").write_text(
        "print('importing', flush=True)\nimport sys\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, str(ROOT / script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 128 + signal.SIGINT
        assert process.stderr.read() == f"{name}: stopped by SIGINT\n"


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_a_line_that_says_how_to_go_on(small_yaml: Path, tmp_path: Path):
    arguments = ["--cfg", small_yaml, "--output", tmp_path, "--opts", "TRAIN.EPOCHS", 1000]
    with subprocess.Popen(
        command(*arguments, "PRINT_FREQ", 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch    2/1000"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    last = errors.splitlines()[-1]
    kept = re.fullmatch(
        r"train.py: stopped by SIGINT; (\S+) is kept, the same command goes on from it", last
    )
    assert kept is not None
    assert load_state(kept[1])["epoch"] >= 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_two_ranks_repeat_themselves_bit_by_bit(small_yaml: Path, tmp_path: Path):
    summaries = []
    for name in ("first", "again"):
        options = ["--output", tmp_path / name, "--opts", "TRAIN.EPOCHS", 1]
        done = run("--cfg", small_yaml, *options, num_ranks=2)
        assert done.returncode == 0, done.stderr
        assert "top-1" in done.stdout
        summaries.append(json.loads((tmp_path / name / "small" / "summary.json").read_text()))
    first, again = summaries
    assert first["weights_sha256"] == again["weights_sha256"]
    assert first["world_size"] == 2
    assert first["steps"] == 718 // 128
    assert first["num_test_images"] == 360


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_ends_every_rank(small_yaml: Path, tmp_path: Path):
    arguments = ["--cfg", small_yaml, "--output", tmp_path]
    done = run(*arguments, "--opts", "TRAIN.EPOCHS", 1, num_ranks=2)
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "small" / "ckpt_epoch_1.pth"
    most = checkpoint.stat().st_size // 2

    def limit_files() -> None:  # for any user and folder, where a full disk takes a mount
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = subprocess.run(
        command(*arguments, "--resume", checkpoint, "--opts", "TRAIN.EPOCHS", 9, num_ranks=2),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit_files,
    )
    assert done.returncode == 1  # torchrun's own
    line = f"error: cannot write {tmp_path}/small/ckpt_epoch_2.pth: File too large; {checkpoint} is"
    assert f"train.py: {line}" in done.stderr
    assert f"traceback : {line}" in done.stderr  # torchrun's last words
    assert "exitcode  : -" not in done.stderr  # no rank had to be killed
    assert load_state(checkpoint)["epoch"] == 0
    assert not list((tmp_path / "small").glob(".ckpt*"))


@pytest.mark.slow
def test_torchrun_shows_the_line_of_a_mistake(small_yaml: Path, tmp_path: Path):
    done = run("--cfg", small_yaml, "--output", tmp_path, "--batch-size", 719, num_ranks=2)
    assert done.returncode == 1  # torchrun's own
    assert "train.py: error: build_data: expected training images of a rank >= " in done.stderr
    assert "exitcode  : 2" in done.stderr
    # Below torchrun's own stack trace, without one of ours.
    cause = done.stderr.rpartition("Root Cause")[2]
    assert "traceback : error: build_data: expected training images of a rank >= " in cause
    assert "Traceback" not in cause
