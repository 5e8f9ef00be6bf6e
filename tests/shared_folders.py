"""Folders that the processes of one test run share: what is in them is made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


@contextmanager
def folder_of_all(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Give a folder that all of pytest-xdist's processes know by this name, to one at a time."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the whole run
    folder = base / name
    folder.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        yield folder
