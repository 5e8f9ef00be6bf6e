"""The trainings beside the tests: begun in order, killed at the end, told when they fail."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.trained_runs import TrainedRun, Trainings, needed_by, sort_trained_last


def start(folder: Path, num_at_once: int = 1, **programs: str) -> Trainings:
    """Trainings that run these lines of Python."""
    runs = {}
    for name in programs:
        (folder / name).mkdir()
        runs[name] = TrainedRun(folder / name, folder, folder)
    commands = {name: [sys.executable, "-c", text] for name, text in programs.items()}
    return Trainings(runs, commands, num_at_once=num_at_once)


def test_the_second_begins_when_the_first_has_ended(tmp_path: Path):
    log = f"file = open({str(tmp_path / 'log')!r}, 'a', buffering=1); import time\n"
    text = log + "for i in range(3): print('NAME', file=file); time.sleep(0.05)"
    trainings = start(tmp_path, a=text.replace("NAME", "a"), b=text.replace("NAME", "b"))
    assert trainings.wait_for("b").folder == tmp_path / "b"
    assert trainings.wait_for("a").folder == tmp_path / "a"
    assert (tmp_path / "log").read_text().split() == ["a"] * 3 + ["b"] * 3
    trainings.stop()


def test_two_run_at_once(tmp_path: Path):
    folder = f"import pathlib, time; folder = pathlib.Path({str(tmp_path)!r})\n"
    text = folder + "(folder / 'OWN.begun').touch()\n"
    text += "end = time.monotonic() + 60\n"
    text += "while not (folder / 'OTHER.begun').exists():\n"
    text += "    time.sleep(0.01)\n"
    text += "    assert time.monotonic() < end, 'alone for a minute'"
    trainings = start(
        tmp_path,
        num_at_once=2,
        a=text.replace("OWN", "a").replace("OTHER", "b"),
        b=text.replace("OWN", "b").replace("OTHER", "a"),
    )
    trainings.wait_for("a")
    trainings.wait_for("b")
    trainings.stop()


def test_one_that_fails_says_why_and_the_next_is_trained(tmp_path: Path):
    trainings = start(tmp_path, a="raise SystemExit('no such data')", b="")
    with pytest.raises(AssertionError, match="no such data"):
        trainings.wait_for("a")
    assert trainings.wait_for("b").folder == tmp_path / "b"


def test_what_still_runs_at_the_end_is_killed_and_nothing_else_begins(tmp_path: Path):
    begun = tmp_path / "begun"
    trainings = start(
        tmp_path,
        a=f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(600)",
        b=f"import pathlib; pathlib.Path({str(tmp_path / 'second')!r}).touch()",
    )
    while not begun.exists():
        time.sleep(0.01)
    trainings.stop()  # would wait for ten minutes
    with pytest.raises(AssertionError):
        trainings.wait_for("a")
    assert not (tmp_path / "second").exists()


def test_the_tests_that_need_a_training_come_last_in_the_order_of_trainings():
    fixtures = {"a": ["trained_segmentor"], "b": [], "c": ["tmp_path", "trained_run"], "d": []}
    items = [
        SimpleNamespace(name=name, fixturenames=names, markers=[])
        for name, names in fixtures.items()
    ]
    for item in items:
        item.add_marker = item.markers.append
    assert needed_by(items) == ["trained_run", "trained_segmentor"]
    assert needed_by(items[:2]) == ["trained_segmentor"]
    sort_trained_last(items)
    assert [item.name for item in items] == ["b", "d", "c", "a"]
    assert [item.markers for item in items] == [[], [], ["trained"], ["trained"]]
