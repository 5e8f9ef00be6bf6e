"""A tiny detector that the scripts have trained, shared by the tests that need one."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.detection.script_runs import Done, run_script
from tests.detection.tiny_coco import write_config, write_images


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data/`` in COCO's format and ``tiny.py``, a config of a tiny Mask R-CNN."""
    folder = tmp_path_factory.mktemp("tiny")
    write_config(folder / "tiny.py", write_images(folder / "data"))
    return folder


@pytest.fixture(scope="session")
def trained(tiny_folder: Path) -> tuple[Path, Done]:
    """The work dir of a run of two epochs, eight steps each, and how the script ended."""
    done = run_script("train.py", "tiny.py", "--work-dir", "run", folder=tiny_folder)
    assert done.code == 0, done.errors
    return tiny_folder / "run", done


@pytest.fixture
def signals_and_warnings_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets a script run in this process and leave no trace in it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(warnings, "filters", list(warnings.filters))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
