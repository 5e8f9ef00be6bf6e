"""What a rank says when its script ends with a mistake."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from classification.launch.command_line import run_script
from internimage import script


@pytest.fixture(autouse=True)
def signals_and_warnings_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(script.warnings, "showwarning", script.warnings.showwarning)
    monkeypatch.setattr(script, "SECONDS_FOR_A_WORD", 0.0)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def fail() -> None:
    raise ValueError("expected a disk,\n got none")


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (None, "train.py: error: expected a disk, got none\n"),
        ("0", "train.py: error: expected a disk, got none\n"),
        ("3", "train.py: rank 3: error: expected a disk, got none\n"),
    ],
)
def test_without_torchrun_every_rank_says_its_own_mistake(rank, said, monkeypatch, capsys):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert run_script("train.py", fail) == script.BAD_INPUT
    assert capsys.readouterr().err == said


def test_under_torchrun_the_other_ranks_leave_the_word_to_it(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert run_script("train.py", fail) == script.BAD_INPUT
    assert capsys.readouterr().err == ""
    told = json.loads((tmp_path / "error.json").read_text())
    assert told["message"]["message"] == "error: expected a disk, got none"
