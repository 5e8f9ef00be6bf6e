"""Tests that cannot run on a machine are skipped there, with the reason, and only there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKED = """
import pytest

@pytest.mark.inductor
def test_that_generates_code():
    pass

def test_that_does_not():
    pass
"""


def run_marked_tests(folder: Path, compiler: str) -> str:
    shutil.copy(ROOT / "conftest.py", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "test_marked.py").write_text(MARKED)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_marked.py"],
        cwd=folder,
        env=os.environ | {"CXX": compiler},
        capture_output=True,
        text=True,
    ).stdout


def test_without_a_compiler_tests_that_generate_code_are_skipped_with_the_reason(tmp_path: Path):
    printed = run_marked_tests(tmp_path, "no-such-compiler")
    assert "1 passed, 1 skipped" in printed
    assert "torch.compile needs a C++ compiler, and 'no-such-compiler' is not here" in printed


def test_with_a_compiler_only_missing_headers_of_python_skip_them(tmp_path: Path):
    printed = run_marked_tests(tmp_path, "sh")
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    assert ("2 passed" if headers else "apt-get install python3-dev") in printed
