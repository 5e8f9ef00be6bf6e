"""The table of `gpu_checks` on the first CUDA device, a test a check."""

from __future__ import annotations

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip(
        "no CUDA device: the GPU kernels were not run (test_gpu_checks.py proves the checks on "
        "the CPU)",
        allow_module_level=True,
    )

from gpu_checks import CHECKS, run_check  # noqa: E402  (its imports cost seconds)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if check.slow else [])
        for name, check in CHECKS.items()
    ],
)
def test_on_the_gpu(name):
    outcome = run_check(CHECKS[name], torch.device("cuda", 0))
    if outcome.status == "skipped":
        pytest.skip(outcome.detail)
    assert outcome.status == "passed", outcome.detail
