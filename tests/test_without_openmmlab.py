"""Where OpenMMLab is not installed the scripts say how to install it, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "autonomous_driving/train.py": ["config.py"],
    "autonomous_driving/test.py": ["config.py", "weights.pth"],
    "autonomous_driving/demo.py": ["config.py", "--out", "pictures"],
    "detection/train.py": ["config.py"],
    "detection/test.py": ["config.py", "weights.pth"],
    "detection/get_flops.py": ["config.py"],
    "detection/image_demo.py": ["image.jpg", "config.py", "weights.pth"],
    "segmentation/train.py": ["config.py"],
    "segmentation/test.py": ["config.py", "weights.pth"],
    "segmentation/get_flops.py": ["config.py"],
    "segmentation/image_demo.py": ["image.jpg", "config.py", "weights.pth"],
    "tools/check_coco.py": ["train.json", "train"],
    "tools/make_driving_scenes.py": ["--out", "folder"],
    "tools/make_nuscenes_infos.py": ["folder", "--can-bus", "folder"],
    "tools/make_openlane_pickles.py": ["folder"],
    "tools/score_driving_submission.py": ["maps.json", "truth.json"],
}


@pytest.fixture(scope="module")
def without_openmmlab(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which mmengine cannot be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "mmengine.py").write_text('raise ModuleNotFoundError("No module named mmengine")\n')
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "script", [name for name in SCRIPTS if "driving" in name or "make_" in name]
)
def test_a_python_without_any_package_is_told_the_command_too(script: str):
    # -S: the standard library alone, as that of a machine where nothing is activated.
    result = subprocess.run(
        [sys.executable, "-S", ROOT / script, *SCRIPTS[script]],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert "No module named" in line and ".venv/bin/python" in line
