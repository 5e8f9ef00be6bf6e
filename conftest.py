"""Skips, with the reason, the tests that need what this machine does not have."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import pytest


def why_no_inductor() -> str | None:
    """Why ``torch.compile`` cannot generate code here, or None when it can."""
    compiler = os.environ.get("CXX", "g++").split()[0]
    if shutil.which(compiler) is None:
        return f"torch.compile needs a C++ compiler, and {compiler!r} is not here"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "torch.compile needs Python's headers; on Debian: apt-get install python3-dev"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests marked ``inductor`` where code cannot be generated."""
    reason = why_no_inductor()
    for item in items:
        if reason is not None and item.get_closest_marker("inductor"):
            item.add_marker(pytest.mark.skip(reason=reason))
