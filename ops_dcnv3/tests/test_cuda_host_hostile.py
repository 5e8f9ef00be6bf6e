"""The tests of test_hostile.py again, with the CUDA kernels, run on the host, as the operator."""

from __future__ import annotations

import inspect

import pytest
import test_hostile
from host_kernels import HostOperator, Run, host_kernels

WAYS = {"planned": Run(), "deterministic": Run(deterministic=True)}

pytestmark = pytest.mark.slow


@pytest.fixture(params=WAYS)
def operator(request: pytest.FixtureRequest) -> HostOperator:
    """In place of the operators of conftest.py."""
    return HostOperator(host_kernels("plain"), WAYS[request.param])


def _tests_of_operators() -> dict[str, object]:
    """Every test of that file that asks for an operator."""
    tests = {n: t for n, t in vars(test_hostile).items() if n.startswith("test_")}
    return {n: t for n, t in tests.items() if "operator" in inspect.signature(t).parameters}


globals().update(_tests_of_operators())


def test_there_are_such_tests():
    assert len(_tests_of_operators()) >= 10
