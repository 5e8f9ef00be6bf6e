"""Shared set-up of the operator's tests.

The tests run against every implementation of this machine: the reference, and `ops_dcnv3.dcnv3` at
each instruction-set level of the compiled kernels, or on its PyTorch fallback where there are none,
or on Triton's kernels in a process that interprets them (see test_triton.py).
With `OPS_DCNV3_REQUIRE_NATIVE=1` (which `make test` sets) missing kernels fail instead of skipping.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._functorch import config as functorch_config

# pytest's importlib mode puts no folder on the path, and it has just made an empty namespace
# package of the folder `ops_dcnv3/` (it calls this file `ops_dcnv3.tests.conftest`), which would
# hide the installed one.
sys.path.insert(0, str(Path(__file__).parent))
if getattr(sys.modules.get("ops_dcnv3"), "__file__", None) is None:
    sys.modules.pop("ops_dcnv3", None)

from dcnv3_cases import Operator

import ops_dcnv3
from ops_dcnv3 import extension

# PyTorch keeps compiled graphs on disk by what their forward pass looks like: one from before a
# change of the backward operators would be found again, and call them by the schema of then.
functorch_config.enable_autograd_cache = False

NO_LEVEL, INTERPRETED = "none", "triton"
LEVELS = extension.cpu_levels() or (NO_LEVEL,)
if extension.is_interpreting_triton():
    from ops_dcnv3 import triton_ops

    LEVELS = (INTERPRETED,)
    triton_ops.THREADS = 2048  # the interpreter takes as long for a small block as for a large one


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker here too, so that this folder can be tested on its own."""
    config.addinivalue_line("markers", "slow: takes more than a few seconds")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say once which kernels the results below belong to."""
    if session.config.get_verbosity() >= 0:
        print(f"ops_dcnv3: {ops_dcnv3.extension_info()}")


def use_level(level: str) -> None:
    """Run the compiled kernels at this level; without any, fail if they are required, else skip."""
    if level == INTERPRETED:
        return
    if level != NO_LEVEL:
        extension.set_cpu_level(level)
        return
    reason = f"no compiled CPU kernels: {ops_dcnv3.extension_info()['missing']['cpu']}"
    if os.environ.get("OPS_DCNV3_REQUIRE_NATIVE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def _keep_level() -> Iterator[None]:
    """Put the level back that the process started with."""
    level = ops_dcnv3.extension_info()["cpu_level"]
    yield
    if level is not None:
        extension.set_cpu_level(level)


@pytest.fixture(params=LEVELS)
def native(request: pytest.FixtureRequest, _keep_level: None) -> Operator:
    """`ops_dcnv3.dcnv3` on the compiled kernels, once for each level."""
    use_level(request.param)
    return ops_dcnv3.dcnv3


@pytest.fixture
def compiled(_keep_level: None) -> None:
    """For tests that need the compiled kernels, whatever the level."""
    use_level(LEVELS[-1])


@pytest.fixture(params=["reference", *(LEVELS if LEVELS != (NO_LEVEL,) else ["fallback"])])
def operator(request: pytest.FixtureRequest, _keep_level: None) -> Operator:
    """The reference, then `ops_dcnv3.dcnv3` in every form it has here."""
    if request.param == "reference":
        return ops_dcnv3.dcnv3_reference
    if request.param == "fallback" and os.environ.get("OPS_DCNV3_REQUIRE_NATIVE") == "1":
        use_level(NO_LEVEL)
    if request.param != "fallback":
        use_level(request.param)
    return ops_dcnv3.dcnv3


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """The same random numbers in every test, and the number of threads as it was."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
