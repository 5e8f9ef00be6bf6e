"""Runs the scripts of detection/ as a user would."""

from __future__ import annotations

from pathlib import Path

from tests import script_runs
from tests.script_runs import ROOT, Done

__all__ = ["CONFIGS", "ROOT", "Done", "run_script"]

CONFIGS = ROOT / "detection" / "configs"


def run_script(
    name: str, *arguments: str, folder: Path, stop_at: str | None = None, **variables: str
) -> Done:
    """Runs a script of detection/ in a folder; see ``tests.script_runs.run_script``."""
    return script_runs.run_script(
        f"detection/{name}", *arguments, folder=folder, stop_at=stop_at, **variables
    )
