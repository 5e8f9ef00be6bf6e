"""Where OpenMMLab is not installed the scripts say how to install it, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "detection/train.py": ["config.py"],
    "detection/test.py": ["config.py", "weights.pth"],
    "detection/get_flops.py": ["config.py"],
    "detection/image_demo.py": ["image.jpg", "config.py", "weights.pth"],
    "segmentation/train.py": ["config.py"],
    "segmentation/test.py": ["config.py", "weights.pth"],
    "segmentation/get_flops.py": ["config.py"],
    "segmentation/image_demo.py": ["image.jpg", "config.py", "weights.pth"],
    "tools/check_coco.py": ["train.json", "train"],
}


@pytest.fixture(scope="module")
def without_openmmlab(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which mmengine cannot be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "mmengine.py").write_text('raise ModuleNotFoundError("No module named mmengine")\n')
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_names_the_command_that_installs_openmmlab(script: str, without_openmmlab):
    result = subprocess.run(
        [sys.executable, ROOT / script, *SCRIPTS[script]],
        env=without_openmmlab,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert "No module named mmengine" in line and "make setup-all" in line
    assert result.stdout == ""
