"""A tiny segmentor that the scripts have trained, shared by the tests that need one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.script_runs import Done
from tests.segmentation.tiny_segmentation_sets import run_script, write_config, write_images


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data/`` of images and masks, and ``tiny.py``, a config of a tiny UperNet."""
    folder = tmp_path_factory.mktemp("tiny_segmentation")
    write_config(folder / "tiny.py", write_images(folder / "data"))
    return folder


@pytest.fixture(scope="session")
def trained(tiny_folder: Path) -> tuple[Path, Done]:
    """The work dir of a run of 24 steps, evaluated twice, and how the script ended."""
    done = run_script("train.py", "tiny.py", "--work-dir", "run", folder=tiny_folder)
    assert done.code == 0, done.errors
    return tiny_folder / "run", done
