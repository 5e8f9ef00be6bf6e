"""A run goes on with other numbers of ranks, under torchrun: from two to one to three."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from classification.runs.checkpoint import load_state

ROOT = Path(__file__).resolve().parents[2]

# Random numbers in every part, an average, and batch norm, whose statistics differ between ranks.
SMALL = """
AMP_OPT_LEVEL: O0
LOGGER: none
DATA: {DATASET: digits, IMG_SIZE: 16, NUM_WORKERS: 0, BATCH_SIZE: 100}
MODEL: {ARCH: internimage_test_t, DROP_PATH_RATE: 0.1}
TRAIN: {WARMUP_EPOCHS: 0, BASE_LR: 1.0e-2, EMA: {ENABLE: True, DECAY: 0.8}}
AUG: {ROTATE: 5.0, REPROB: 0.25, MIXUP: 0.0, CUTMIX: 0.0}
"""

# Ranks -> steps of an epoch: 100 images each of 1,437.
STEPS = {2: 7, 1: 14, 3: 4}
# What an epoch leaves, whoever adds it up; the rest is time.
FIGURES = ("train_loss", "gradient_norm", "learning_rate", "test_loss", "top1", "top5")


@pytest.mark.slow
def test_from_two_ranks_to_one_to_three(tmp_path: Path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)
    folder = tmp_path / "small"
    rows: list[list[dict[str, str]]] = []
    for num_epochs, num_ranks in enumerate(STEPS, start=1):
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"]
        script = [ROOT / "classification" / "train.py", "--cfg", recipe, "--output", tmp_path]
        options = ["--opts", "TRAIN.EPOCHS", num_epochs]
        done = subprocess.run(
            [sys.executable, *launcher, *map(str, [*script, *options])],
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["world_size"], summary["epochs"]) == (num_ranks, num_epochs)
        assert summary["steps"] == num_epochs * STEPS[num_ranks]
        assert len(load_state(folder / f"ckpt_epoch_{num_epochs}.pth")["ranks"]) == num_ranks
        with (folder / "metrics.csv").open() as file:
            rows.append(list(csv.DictReader(file)))
        assert [row["epoch"] for row in rows[-1]] == [str(n + 1) for n in range(num_epochs)]
    # The checkpoint of an epoch's end was saved before the epoch was evaluated: the other ranks put
    # its sums together again and evaluate the mean of the former ranks' statistics.
    for before, after in zip(rows, rows[1:], strict=False):
        for key in FIGURES:
            assert float(after[len(before) - 1][key]) == pytest.approx(
                float(before[-1][key]), rel=1e-5
            ), key
    losses = [float(row["train_loss"]) for row in rows[-1]]
    assert losses[0] > losses[1] > losses[2]
