"""Races: the same call many times, while other work keeps the device busy."""

from __future__ import annotations

from functools import partial

import torch
from dcnv3_cases import RESULT_NAMES, Case, deterministic_algorithms

from .compare import allowed_errors, assert_same_bits, assert_within, make_tensors, name_of
from .numerics import run
from .table import add

DETERMINISTIC_RUNS, DEFAULT_RUNS = 50, 250
CASES = [
    Case(batch=4, height=56, width=56, groups=4, group_channels=16, softmax=True),
    Case(batch=8, height=7, width=7, groups=16, group_channels=32, softmax=True),
    Case(batch=2, height=31, width=29, groups=3, group_channels=7),
    Case(batch=1, height=100, width=160, groups=2, group_channels=16),
]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class OtherWork:
    """Kernels on a stream of their own, so that blocks of the operator start at odd times."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.numbers = torch.ones(2**22, device=device)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))

    def start(self) -> None:
        """Enqueue some of it; returns at once."""
        if self.stream is not None:
            with torch.cuda.stream(self.stream):
                for _ in range(4):
                    self.numbers.mul_(1.0001)


def same_bits(device: torch.device, *, case: Case, dtype: torch.dtype, runs: int) -> str:
    """In deterministic mode every run gives the bits of the first one, near the exact results."""
    tensors, grad_output = make_tensors(case, device, dtype)
    bounds = allowed_errors(tensors, grad_output, case)
    work = OtherWork(device)
    with deterministic_algorithms():
        first = run(tensors, grad_output, case)
        for repeat in range(1, runs):
            if repeat % 2:
                work.start()
            assert_same_bits(run(tensors, grad_output, case), first, f" in run {repeat + 1}")
    return f"{runs} runs equal; {assert_within(first, bounds, tensors)}"


def within_rounding(device: torch.device, *, case: Case, dtype: torch.dtype, runs: int) -> str:
    """In the default mode every run is near the exact results; the output has the same bits.

    Only gradients may be summed in an order that changes.
    """
    tensors, grad_output = make_tensors(case, device, dtype)
    bounds = allowed_errors(tensors, grad_output, case)
    work = OtherWork(device)
    first = run(tensors, grad_output, case)
    differing = dict.fromkeys(RESULT_NAMES, 0)
    for repeat in range(1, runs):
        if repeat % 2:
            work.start()
        results = run(tensors, grad_output, case)
        assert torch.equal(results[0], first[0]), f"output differs in run {repeat + 1}"
        assert_within(results, bounds, tensors)
        for name, ours, before in zip(RESULT_NAMES, results, first, strict=True):
            differing[name] += not torch.equal(ours, before)
    counts = ", ".join(f"{name} {count}" for name, count in differing.items())
    return f"{runs} runs; with other bits than the first: {counts}"


for _case in CASES:
    for _dtype in DTYPES:
        for _function, _runs in ((same_bits, DETERMINISTIC_RUNS), (within_rounding, DEFAULT_RUNS)):
            add(
                f"repeats/{_function.__name__}/{name_of(_dtype)}/{_case}",
                partial(_function, case=_case, dtype=_dtype, runs=_runs),
                slow=True,
            )
