"""A run by steps that is stopped or killed goes on as if it had not been."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from internimage.integrations.openmmlab.scripts import train as train_script
from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from tests.script_runs import Done, run_here
from tests.segmentation.tiny_segmentation_sets import CONFIGS, run_script

main = functools.partial(train_script.main, "train.py", CONFIGS)
NO_SEED = ("--cfg-options", "randomness.seed=None")
"""As in the configs that are shipped: the seed is the first run's."""

pytestmark = pytest.mark.usefixtures("signals_and_warnings_as_before")


def assert_same_run(found: Path, expected: Path) -> None:
    """The weights of the last step bit by bit, and what the run leaves for people."""
    ours, theirs = (read_checkpoint(run / "iter_24.pth") for run in (found, expected))
    assert str(ours["param_schedulers"]) == str(theirs["param_schedulers"])
    assert set(ours["state_dict"]) == set(theirs["state_dict"])
    assert all(
        torch.equal(value, theirs["state_dict"][key]) for key, value in ours["state_dict"].items()
    )
    states = (checkpoint["optimizer"]["state"] for checkpoint in (ours, theirs))
    for own, other in zip(*(state.values() for state in states), strict=True):
        assert all(torch.equal(own[name], other[name]) for name in ("exp_avg", "exp_avg_sq"))
    histories = [json.loads((run / "history.json").read_text()) for run in (found, expected)]
    assert histories[0]["scores"] == histories[1]["scores"]
    assert (found / "metrics.json").read_text() == (expected / "metrics.json").read_text()


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_bit_by_bit(trained: tuple[Path, Done], capsys):
    unbroken, _ = trained
    folder = unbroken.parent
    command = ("tiny.py", "--work-dir", "stopped")
    stopped = run_script("train.py", *command, folder=folder, stop_at="[16/24]")
    assert stopped.code == 128 + 15
    (line,) = [line for line in stopped.errors.splitlines() if "SIGTERM" in line]
    assert line.startswith("train.py: stopped by SIGTERM; stopped/stopped.pth is kept")
    # Eight images, two a step: in the middle of the fifth time through them.
    done = read_checkpoint(folder / "stopped" / "stopped.pth")["meta"]["iter"]
    assert 16 <= done < 24

    assert run_here(main, *command, "--resume", *NO_SEED, folder=folder) == 0
    assert len(re.findall(r"Iter\(train\)", capsys.readouterr().out)) == 24 - done
    assert_same_run(folder / "stopped", unbroken)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(
    trained: tuple[Path, Done], tmp_path: Path, capsys
):
    unbroken, _ = trained
    folder = unbroken.parent
    shutil.copy(unbroken / "iter_12.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_12.pth"))
    # A kill leaves the records behind the checkpoint, and a file that has just been begun.
    shutil.copy(unbroken / "history.json", tmp_path)
    (tmp_path / "iter_24.pth").write_bytes((unbroken / "iter_24.pth").read_bytes()[:10_000])
    arguments = ("--work-dir", str(tmp_path), "--resume", *NO_SEED)
    assert run_here(main, "tiny.py", *arguments, folder=folder) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"Iter\(train\)", said)) == 12
    assert "loads and discards" not in said  # mmengine's word for a slow start
    assert_same_run(tmp_path, unbroken)


@pytest.mark.slow
def test_weights_alone_are_no_run_to_go_on_with(trained: tuple[Path, Done], tmp_path: Path, capsys):
    folder = trained[0].parent
    state = read_checkpoint(trained[0] / "iter_12.pth")["state_dict"]
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    arguments = ("--work-dir", str(tmp_path), "--resume", str(tmp_path / "weights.pth"))
    assert run_here(main, "tiny.py", *arguments, folder=folder) == 2
    assert "weights alone in" in capsys.readouterr().err
