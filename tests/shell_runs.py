"""Runs shell scripts beside programs that only write down what they were called with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder with torchrun, srun and scontrol that write what they were called with.

    srun leaves with the first number in its file of exit codes, and takes that off.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("torchrun", "srun", "scontrol"):
        script = folder / name
        script.write_text(
            f'#!/usr/bin/env bash\nprintf "%s\\n" "{name}" "$@" "" >> {tmp_path}/calls\n'
            f'echo "${{TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-}}" > {tmp_path}/seconds_to_stop\n'
            f"code=$(head -n 1 {tmp_path}/{name}_codes 2>/dev/null)\n"
            f"sed -i 1d {tmp_path}/{name}_codes 2>/dev/null\n"
            "exit ${code:-0}\n"
        )
        script.chmod(0o755)
    return folder


def run_shell(
    script: Path, *arguments: str, fakes: Path, **variables: str
) -> tuple[int, list[list[str]]]:
    """Runs a script; returns its exit code and what it called, words of each call."""
    environment = {"PATH": f"{fakes}:{os.environ['PATH']}", **variables}
    done = subprocess.run([script, *arguments], env=environment, timeout=60)
    calls = fakes.parent / "calls"
    text = calls.read_text() if calls.exists() else ""
    return done.returncode, [call.split("\n") for call in text.split("\n\n") if call]


def after(words: list[str], flag: str) -> str:
    """Returns the word behind a flag."""
    return words[words.index(flag) + 1]
