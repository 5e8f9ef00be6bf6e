"""What the benchmark compares with computes the same numbers, and its record says what it must."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date
from types import ModuleType

import pytest
import torch
from benchmark_scripts import imported
from dcnv3_cases import Case

import ops_dcnv3

MODULES = ("bench_dcnv3", "competitors", "measure", "memory", "workloads")
CASES = [
    Case(height=7, width=9, groups=3, group_channels=16),
    Case(height=5, width=4, groups=1, group_channels=8),
]


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's files by name; they are scripts, not a package."""
    with imported(*MODULES) as modules:
        yield modules


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_original_path_computes_the_same_numbers(benchmarks, case):
    tensors = case.tensors(torch.float32)
    exact = ops_dcnv3.dcnv3_reference(*tensors, **case.settings)
    actual = benchmarks["competitors"].original_path(*tensors, groups=case.groups)
    torch.testing.assert_close(actual, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_torchvision_path_computes_the_same_numbers(benchmarks, case):
    pytest.importorskip("torchvision")
    competitors = benchmarks["competitors"]
    tensors = case.tensors(torch.float32)
    exact = ops_dcnv3.dcnv3_reference(*tensors, **case.settings)
    arguments = competitors.torchvision_arguments(*tensors, groups=case.groups)
    actual = competitors.torchvision_path(*arguments).permute(0, 2, 3, 1)
    torch.testing.assert_close(actual, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "value, goal, at_most, cells",
    [
        (1.8, 1.8, False, (">= 1.80", "met")),
        (1.79, 1.8, False, (">= 1.80", "missed")),
        (1.35, 1.35, True, ("<= 1.35", "met")),
        (1.36, 1.35, True, ("<= 1.35", "missed")),
    ],
)
def test_a_goal_is_met_or_missed(benchmarks, value, goal, at_most, cells):
    assert benchmarks["measure"].judge(value, goal, at_most=at_most) == cells


def rows(record: str, title: str) -> list[dict[str, str]]:
    """The table under a heading, a dict a row."""
    section = record.partition(f"## {title}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.fixture
def record(benchmarks, compiled, monkeypatch, tmp_path) -> str:
    """What `--markdown` writes, of one sample each on the smallest shape."""
    bench, workloads = benchmarks["bench_dcnv3"], benchmarks["workloads"]
    smallest = (0, workloads.Shape("224 px", batch=1, stage=3))
    monkeypatch.setattr(bench, "shapes", lambda: iter([smallest]))
    monkeypatch.setattr(bench, "QUICK", benchmarks["measure"].Effort(1, 1, 0.0))
    path = tmp_path / "records" / "machine.md"
    command = ["bench_dcnv3.py", "--quick", "--only", "original", "softmax", "scaling"]
    monkeypatch.setattr(sys, "argv", [*command, "--markdown", str(path)])
    bench.main()
    return path.read_text()


def test_a_record_names_date_command_hardware_and_versions(record):
    assert record.startswith("# ")
    assert f"{date.today()}: `python " in record
    assert "--only original softmax scaling" in record
    assert "- CPU: " in record and "- instruction sets: " in record
    assert f"ops_dcnv3 {ops_dcnv3.__version__}, PyTorch {torch.__version__}, Python " in record


def test_a_record_judges_each_goal_by_the_number_beside_it(record):
    judged = [
        *((row, "times") for row in rows(record, "forward, float32, against")),
        *((row, "times") for row in rows(record, "forward+backward, float32, against")),
        *((row, "fused / without") for row in rows(record, "softmax, forward, float32")),
        *((row, "times") for row in rows(record, "threads, forward, float32")),
    ]
    judged = [(row, column) for row, column in judged if row["verdict"] != "-"]
    assert len(judged) >= 2
    for row, column in judged:
        sign, goal = row["goal"].split()
        value, goal = float(row[column]), float(goal)
        if abs(value - goal) > 0.01:  # the cell is rounded
            met = value <= goal if sign == "<=" else value >= goal
            assert row["verdict"] == ("met" if met else "missed")


def test_a_record_has_each_level_its_distance_to_the_floor_and_the_fixed_cost(record):
    levels = rows(record, "forward, float32, against")
    assert sorted(row["level"] for row in levels) == sorted(
        ops_dcnv3.extension_info()["cpu_levels"]
    )
    for row in levels:
        assert float(row["ns a (pixel, group)"]) > 0
        assert row["times the floor"] == "-" or float(row["times the floor"]) > 0
    fixed = rows(record, "fixed cost of a call")
    assert [row["pass"] for row in fixed] == ["forward", "forward+backward"]
    assert all(float(row["microseconds"]) > 0 for row in fixed)
    assert re.search(r"Of each call \d+ microseconds are the fixed cost", record)
