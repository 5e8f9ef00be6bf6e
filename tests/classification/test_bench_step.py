"""The benchmark of a step prints a ratio for each contender."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "classification" / "benchmarks" / "bench_step.py"


@pytest.mark.slow
def test_a_quick_run_prints_the_ratios():
    quick = ["--model", "internimage_test_t", "--size", "32", "--steps", "2", "--turns", "2"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *quick], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\w+) \| [\d.]+ \| [\d.]+ \| (\w+) \| ([\d.]+) \| ", done.stdout, re.M)
    assert [row[:2] for row in rows] == [("bare", "bare"), ("engine", "bare"), ("run", "engine")]
    assert all(float(ratio) > 0 for _, _, ratio in rows)
