"""Models that are trained once a session, for all tests that need one which has learnt something.

Such tests are marked ``trained`` and come last. Where there are others, the trainings run beside
them, one after the other: a training has one core and the tests have another. Where there are none,
as in the second part of ``make test``, two trainings run at a time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.shared_folders import folder_of_all

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a fixture's model is trained by.

    Args:
        config: in the checkout; the folder at its front has the script.
        scenes: the fixture that makes its data.
        part: folder of its data within those.
    """

    config: str
    scenes: str
    part: str = ""


def _of_driving(config: str, part: str) -> Recipe:
    return Recipe(f"autonomous_driving/configs/{config}", "driving_scenes", part)


RECIPES = {
    "trained_run": Recipe(
        "detection/configs/digit_scenes/mask_rcnn_internimage_n_fpn.py", "digit_scenes"
    ),
    "trained_segmentor": Recipe(
        "segmentation/configs/digit_scenes/upernet_internimage_n.py", "digit_scenes"
    ),
    "trained_occupancy": _of_driving(
        "occupancy_prediction/bevformer_intern_occ_tiny.py", "nuscenes"
    ),
    "trained_lanes": _of_driving("openlane-v2/internimage_tiny.py", "openlane"),
    "trained_vector_map": _of_driving(
        "Online-HD-Map-Construction/vectormapnet_intern_tiny.py", "argoverse2"
    ),
}
"""Of each fixture what its model is trained by, in the order of training."""

PATIENCE = 3600  # seconds


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


class Trainings:
    """Trainings in processes of their own, which begin in the order of ``commands``.

    Args:
        runs: what they leave, by the name of the fixture.
        commands: of each its command.
        num_at_once: so many run at a time.
    """

    def __init__(
        self, runs: dict[str, TrainedRun], commands: dict[str, list[str]], *, num_at_once: int = 1
    ) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_stopped = False
        self._threads = ThreadPoolExecutor(num_at_once)
        self._codes = {
            name: self._threads.submit(self._train, name, command)
            for name, command in commands.items()
        }

    def wait_for(self, name: str) -> TrainedRun:
        """Returns a run when its training has ended, and fails if that went wrong."""
        ended, _ = wait([self._codes[name]], PATIENCE)
        assert ended, f"{name} is still being trained"
        assert self._codes[name].result() == 0, self._said(name).read_text(encoding="utf-8")[-4000:]
        return self._runs[name]

    def stop(self) -> None:
        """Kills the trainings that are running, and starts no other one."""
        with self._lock:
            self._is_stopped = True
            for process in self._processes:
                process.kill()
        self._threads.shutdown()

    def _said(self, name: str) -> Path:
        return self._runs[name].folder.with_suffix(".txt")

    def _train(self, name: str, command: list[str]) -> int | None:
        """Returns the exit code, None where the trainings are stopped already."""
        with self._said(name).open("wb") as file:
            with self._lock:
                if self._is_stopped:
                    return None
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
                self._processes.append(process)
            return process.wait()


def command_of(run: TrainedRun) -> list[str]:
    """Returns the command that trains, as a user would type it."""
    task = run.config.relative_to(ROOT).parts[0]
    return [
        *(sys.executable, f"{task}/train.py", str(run.config), "--work-dir", str(run.folder)),
        *("--cfg-options", run.data_option),
    ]


def needed_by(items: Sequence[pytest.Item]) -> list[str]:
    """Returns the fixtures of trained models that some test asks for, in the order of training."""
    asked = {name for item in items for name in getattr(item, "fixturenames", ())}
    return [name for name in RECIPES if name in asked]


def sort_trained_last(items: list[pytest.Item]) -> None:
    """Marks the tests that need a trained model and puts them last, in the order of training."""
    order = list(RECIPES)

    def last_training(item: pytest.Item) -> int:
        return max((order.index(name) + 1 for name in needed_by([item])), default=0)

    for item in items:
        if last_training(item):
            item.add_marker("trained")
    items.sort(key=last_training)


@pytest.fixture(scope="session")
def digit_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes as ``tools/make_digit_scenes.py`` makes them when not told otherwise."""
    return make_scenes("digit", tmp_path_factory)


@pytest.fixture(scope="session")
def driving_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drives as ``tools/make_driving_scenes.py`` makes them when not told otherwise."""
    return make_scenes("driving", tmp_path_factory)


def make_scenes(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder with what the tool for scenes of this kind has made."""
    with folder_of_all(tmp_path_factory, f"{kind} scenes") as folder:
        scenes = folder / "scenes"
        if not scenes.exists():
            done = subprocess.run(
                [sys.executable, f"tools/make_{kind}_scenes.py", "--out", scenes],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert done.returncode == 0, done.stderr[-4000:]
    return scenes


@pytest.fixture(scope="session")
def trainings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trainings | None]:
    """Starts the trainings that a test of this session will need, by their configs' commands.

    They take minutes on one core; the tests keep to one thread, since threads that wait for a core
    that is taken are slower than one.
    """
    items = request.session.items
    names = needed_by(items)
    if not names:
        yield None
        return
    runs = {}
    for name in names:
        recipe = RECIPES[name]
        scenes = request.getfixturevalue(recipe.scenes) / recipe.part
        runs[name] = TrainedRun(tmp_path_factory.mktemp(name), scenes, ROOT / recipe.config)
    commands = {name: command_of(run) for name, run in runs.items()}
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    has_others = any(not needed_by([item]) for item in items)
    running = Trainings(runs, commands, num_at_once=1 if has_others else 2)
    try:
        yield running
    finally:
        running.stop()
        torch.set_num_threads(num_threads)


@pytest.fixture(scope="session", autouse=True)
def trainings_begin(trainings: Trainings | None) -> None:
    """Lets the trainings begin with the first test of a folder whose conftest has this fixture."""


@pytest.fixture(scope="session")
def trained_run(trainings: Trainings) -> TrainedRun:
    """Mask R-CNN trained on the scenes: once a session, to its end."""
    return trainings.wait_for("trained_run")


@pytest.fixture(scope="session")
def trained_segmentor(trainings: Trainings) -> TrainedRun:
    """UperNet trained on the scenes: once a session, to its end."""
    return trainings.wait_for("trained_segmentor")


@pytest.fixture(scope="session")
def trained_occupancy(trainings: Trainings) -> TrainedRun:
    """BEVFormer's occupancy trained on the drives: once a session, to its end."""
    return trainings.wait_for("trained_occupancy")


@pytest.fixture(scope="session")
def trained_lanes(trainings: Trainings) -> TrainedRun:
    """The baseline of OpenLane-V2 trained on the drives: once a session, to its end."""
    return trainings.wait_for("trained_lanes")


@pytest.fixture(scope="session")
def trained_vector_map(trainings: Trainings) -> TrainedRun:
    """VectorMapNet trained on the drives: once a session, to its end."""
    return trainings.wait_for("trained_vector_map")
