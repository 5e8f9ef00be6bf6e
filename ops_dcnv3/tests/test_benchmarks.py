"""What the benchmark compares with computes the same numbers: only then its ratios mean much."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from dcnv3_cases import Case

import ops_dcnv3

FILE = Path(__file__).parents[1] / "benchmarks" / "competitors.py"
CASES = [
    Case(height=7, width=9, groups=3, group_channels=16),
    Case(height=5, width=4, groups=1, group_channels=8),
]


@pytest.fixture(scope="module")
def competitors() -> ModuleType:
    """The benchmark's module, which is no package."""
    spec = importlib.util.spec_from_file_location("competitors", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_original_path_computes_the_same_numbers(competitors, case):
    tensors = case.tensors(torch.float32)
    exact = ops_dcnv3.dcnv3_reference(*tensors, **case.settings)
    actual = competitors.original_path(*tensors, groups=case.groups)
    torch.testing.assert_close(actual, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_torchvision_path_computes_the_same_numbers(competitors, case):
    pytest.importorskip("torchvision")
    tensors = case.tensors(torch.float32)
    exact = ops_dcnv3.dcnv3_reference(*tensors, **case.settings)
    arguments = competitors.torchvision_arguments(*tensors, groups=case.groups)
    actual = competitors.torchvision_path(*arguments).permute(0, 2, 3, 1)
    torch.testing.assert_close(actual, exact, rtol=0, atol=1e-4)
