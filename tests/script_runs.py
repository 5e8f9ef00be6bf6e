"""Runs the scripts of the tasks as a user would: another process, its output, its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 300


class Done(NamedTuple):
    """How a script ended.

    Args:
        code: Its exit code.
        printed: What it printed.
        errors: What it printed on stderr, without what libraries log at their import.
    """

    code: int
    printed: str
    errors: str


def run_script(
    name: str, *arguments: str, folder: Path, stop_at: str | None = None, **variables: str
) -> Done:
    """Runs a script in a folder.

    Args:
        name: Of the script, from the checkout's root; a ``.sh`` is run by bash.
        *arguments: The command line.
        folder: Where.
        stop_at: The script gets SIGTERM as soon as it prints this.
        **variables: For its environment.
    """
    path = ROOT / name
    command = ["bash", str(path)] if path.suffix == ".sh" else [sys.executable, "-u", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with (folder / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if stop_at is not None and stop_at in line:
                process.send_signal(signal.SIGTERM)
                stop_at = None
        code = process.wait(TIMEOUT)
        errors.seek(0)
        said = [line for line in errors if "[WARNING] [real_accelerator" not in line]
    return Done(code, "".join(lines), "".join(said))


def tiny_fixtures(task: str, sets: ModuleType) -> tuple[Any, Any]:
    """Return the session's fixtures of a tiny model that the scripts of a task have trained.

    Args:
        task: the folder with its ``train.py``.
        sets: has ``write_images(folder)`` and ``write_config(path, images)``.

    Returns:
        ``tiny_folder``, a folder with ``data/`` and ``tiny.py``, and ``trained``, the work dir of
        that config's whole run, evaluated twice, with how the script ended.
    """

    @pytest.fixture(scope="session")
    def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp(f"tiny_{task}")
        sets.write_config(folder / "tiny.py", sets.write_images(folder / "data"))
        return folder

    @pytest.fixture(scope="session")
    def trained(tiny_folder: Path) -> tuple[Path, Done]:
        done = run_script(f"{task}/train.py", "tiny.py", "--work-dir", "run", folder=tiny_folder)
        assert done.code == 0, done.errors
        return tiny_folder / "run", done

    return tiny_folder, trained


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


def run_here(main: Callable[..., int], *arguments: str, folder: Path) -> int:
    """Runs a script's main in this process, in a folder, on one thread; returns its exit code.

    Args:
        main: Of a module of ``scripts``, with its name and configs bound.
        *arguments: The command line.
        folder: Where.
    """
    before, num_threads = Path.cwd(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        os.chdir(folder)
        return main(arguments=list(arguments))
    finally:
        os.chdir(before)
        torch.set_num_threads(num_threads)


def scope_fixture(scope: str) -> Any:
    """Returns a fixture by which models are looked for in a library, whatever ran before.

    Args:
        scope: Of the library, "mmdet" or "mmseg".
    """

    @pytest.fixture(scope="module", autouse=True)
    def default_scope() -> None:
        init_default_scope(scope)

    return default_scope
