"""One detector that is trained once, for all tests that need one which has learnt something."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.detection.script_fixtures import (  # noqa: F401
    signals_and_warnings_as_before,
    tiny_folder,
    trained,
)

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


def run_command(*words: object, timeout: float = 900) -> str:
    """Runs a command of Python's in the checkout's root; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="session")
def digit_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes as ``tools/make_digit_scenes.py`` makes them when not told otherwise."""
    folder = tmp_path_factory.mktemp("digit") / "scenes"
    run_command("tools/make_digit_scenes.py", "--out", folder)
    return folder


@pytest.fixture(scope="session")
def trained_run(digit_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Mask R-CNN trained on them by the command of its config: minutes, once a session."""
    config = CONFIGS / "mask_rcnn_internimage_n_fpn.py"
    folder = tmp_path_factory.mktemp("trained")
    run_command(
        *("detection/train.py", config, "--work-dir", folder),
        *("--cfg-options", f"data_root={digit_scenes}"),
        timeout=3600,
    )
    return TrainedRun(folder, digit_scenes, config)
