"""The loader's benchmark runs and prints a ratio for every storage and policy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "classification/benchmarks/bench_loader.py"


@pytest.mark.slow
def test_the_quick_run_prints_all_ratios():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\S.*?) \| \d+ \| (\d+\.\d+) \| ", done.stdout, re.MULTILINE)
    ours = (
        "ours: folder",
        "ours: folder, in memory",
        "ours: zip",
        "ours: shards",
        "ours: folder, up to finish_train",
    )
    assert [name for name, _ in rows] == ["torchvision + timm", *ours] * 2
    assert all(float(ratio) > 0 for _, ratio in rows)
