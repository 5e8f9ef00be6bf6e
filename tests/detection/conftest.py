"""One detector that is trained once, for all tests that need one which has learnt something."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.detection.script_fixtures import tiny_folder, trained  # noqa: F401
from tests.script_runs import signals_and_warnings_as_before  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "detection" / "configs" / "digit_scenes"


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A training that has ended.

    Args:
        folder: its work dir.
        scenes: its data.
        config: its config in the checkout.
    """

    folder: Path
    scenes: Path
    config: Path

    @property
    def checkpoint(self) -> Path:
        """The last one."""
        return Path((self.folder / "last_checkpoint").read_text(encoding="utf-8").strip())

    def read(self, name: str) -> Any:
        """Returns the content of a JSON file of the work dir."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def data_option(self) -> str:
        """What ``--cfg-options`` needs to find the scenes."""
        return f"data_root={self.scenes}"


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that may still be running.

    Args:
        process: of the script.
        said: the file with all that it prints.
        run: what it leaves.
    """

    process: subprocess.Popen[bytes]
    said: Path
    run: TrainedRun


def waits_for_training(item: pytest.Item) -> bool:
    """Whether a test needs the trained detector."""
    return "trained_run" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that need the trained detector last: it is trained beside all others."""
    items.sort(key=waits_for_training)


@pytest.fixture(scope="session")
def digit_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes as ``tools/make_digit_scenes.py`` makes them when not told otherwise."""
    folder = tmp_path_factory.mktemp("digit") / "scenes"
    done = subprocess.run(
        [sys.executable, "tools/make_digit_scenes.py", "--out", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session", autouse=True)
def training(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Training | None]:
    """Starts the training by its config's command, if a test of this session will need it.

    It takes minutes on one core; the tests keep to the other one until it has ended, since threads
    that wait for a core that is taken are slower than one thread.
    """
    if not any(waits_for_training(item) for item in request.session.items):
        yield None
        return
    scenes = request.getfixturevalue("digit_scenes")
    config = CONFIGS / "mask_rcnn_internimage_n_fpn.py"
    run = TrainedRun(tmp_path_factory.mktemp("trained"), scenes, config)
    said = run.folder.with_suffix(".txt")
    command = [sys.executable, "detection/train.py", str(config), "--work-dir", str(run.folder)]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--cfg-options", run.data_option],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Training(process, said, run)
    finally:
        process.kill()
        process.wait()
        torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def trained_run(training: Training) -> TrainedRun:
    """Mask R-CNN trained on them: once a session, to its end."""
    code = training.process.wait(3600)
    assert code == 0, training.said.read_text(encoding="utf-8")[-4000:]
    return training.run
