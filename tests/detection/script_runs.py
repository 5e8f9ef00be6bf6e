"""Runs the scripts of detection/ as a user would: another process, its output, its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "detection" / "configs"
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
    """Runs a script of detection/ in a folder.

    Args:
        name: Of the script; a ``.sh`` is run by bash.
        *arguments: The command line.
        folder: Where.
        stop_at: The script gets SIGTERM as soon as it prints this.
        **variables: For its environment.
    """
    path = ROOT / "detection" / name
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
