"""The files that a run leaves to read."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classification.runs.records import (
    COLUMNS,
    draw_curves,
    weights_sha256,
    write_json,
    write_metrics,
)


def row(epoch: int, **scores: float) -> dict[str, float]:
    names = [name for name in COLUMNS if name not in ("test_loss", "top1", "top5")]
    return dict.fromkeys(names, 0.5) | {"epoch": epoch} | scores


def test_metrics_have_a_row_an_epoch_and_blanks_without_evaluation(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    write_metrics(path, [row(1), row(2, test_loss=0.1, top1=98.5, top5=100.0)])
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS)
    assert [(r["epoch"], r["top1"]) for r in rows] == [("1", ""), ("2", "98.5")]


def test_json_can_be_read_back(tmp_path: Path):
    write_json(tmp_path / "summary.json", {"top1": 99.5, "name": "run"})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"top1": 99.5, "name": "run"}


def test_the_sum_is_over_the_bytes_in_the_order_of_the_keys():
    first, second = np.arange(6, dtype="<f4").reshape(2, 3), np.array(3, dtype="<i8")
    expected = hashlib.sha256(first.tobytes() + second.tobytes()).hexdigest()
    state = {"b": torch.from_numpy(second), "a": torch.from_numpy(first)}
    assert weights_sha256(state) == expected
    # Strides are no content: a transposed copy of the transpose is the same tensor.
    assert weights_sha256(state | {"a": state["a"].T.contiguous().T}) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_the_sum_sees_a_change_of_one_bit_in_any_dtype(dtype: torch.dtype):
    weight = torch.ones(5, dtype=dtype)
    changed = weight.clone()
    changed.view(torch.uint8)[-1] ^= 1
    assert weights_sha256({"w": weight}) != weights_sha256({"w": changed})


@pytest.mark.parametrize("num_epochs", [1, 5, 60])
def test_curves_are_drawn_for_short_and_long_runs(tmp_path: Path, num_epochs: int):
    rows = [
        row(epoch, test_loss=1 / epoch, top1=100.0 - 50 / epoch, top5=100.0)
        if epoch % 2 or epoch == num_epochs
        else row(epoch)
        for epoch in range(1, num_epochs + 1)
    ]
    draw_curves(tmp_path / "curves.png", rows, title="a run")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 1000  # pixels
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
