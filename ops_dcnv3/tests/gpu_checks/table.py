"""The table of checks, how one is run, and what came of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

Function = Callable[[torch.device], "str | None"]
Status = Literal["passed", "failed", "skipped"]


class Skip(Exception):  # noqa: N818  (no error: the machine lacks something)
    """Raised by a check that this machine cannot run; the text says what is missing."""


@dataclass(frozen=True)
class Check:
    """One row: a function of the device that raises if something is wrong.

    It may return a line of figures for the log.
    """

    name: str  # family/what, for example "oracle/float16/default"
    function: Function
    needs_cuda: bool = False  # has no meaning on a CPU
    sanitize: bool = False  # also under compute-sanitizer: small, and hardly a kernel but ours
    slow: bool = False  # more than about ten seconds


@dataclass(frozen=True)
class Outcome:
    """What came of a check."""

    name: str
    status: Status
    seconds: float
    detail: str  # figures, the reason of a skip, or the traceback


CHECKS: dict[str, Check] = {}


def add(
    name: str,
    function: Function,
    *,
    needs_cuda: bool = False,
    sanitize: bool = False,
    slow: bool = False,
) -> None:
    """Put a check into the table; two of one name would hide each other."""
    assert name not in CHECKS, name
    CHECKS[name] = Check(name, function, needs_cuda, sanitize, slow)


def run_check(check: Check, device: torch.device) -> Outcome:
    """Run one check to its end on the device; never raises but for an interruption."""
    torch.manual_seed(0)
    start = time.perf_counter()
    status: Status = "passed"
    try:
        if check.needs_cuda and device.type != "cuda":
            raise Skip("needs a CUDA device")
        detail = check.function(device) or ""
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a kernel's error belongs to the check that launched it
    except Skip as skip:
        status, detail = "skipped", str(skip)
    except Exception:
        status, detail = "failed", traceback.format_exc()
    return Outcome(check.name, status, time.perf_counter() - start, detail)


def device_is_lost(device: torch.device) -> bool:
    """Whether an earlier kernel broke the device's context, after which every call fails."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return True
    return False
