"""Runs the table without pytest: `python -m gpu_checks`, with this folder's parent on the path.

Every check is written to the log before it starts and when it has ended, so that one that takes the
process down with it is known, and a later run with the same log goes on behind it.

Exit status: 0 all passed or skipped, 1 some failed, 3 the device was lost (go on in a new process),
4 the time was over.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

import ops_dcnv3

from .table import CHECKS, Check, device_is_lost, run_check

FAILED, LOST, OUT_OF_TIME = 1, 3, 4


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m gpu_checks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu to try the checks")
    parser.add_argument("--only", nargs="+", default=[""], metavar="START", help="of their names")
    parser.add_argument("--sanitize", action="store_true", help="the small ones for a sanitizer")
    parser.add_argument("--quick", action="store_true", help="without the slow ones")
    parser.add_argument("--log", type=Path, help="JSON, a line a check; what it holds is not rerun")
    parser.add_argument("--time-limit", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    return parser.parse_args(arguments)


def selected(args: argparse.Namespace) -> list[Check]:
    """The checks asked for, in the order of the table."""
    return [
        check
        for check in CHECKS.values()
        if check.name.startswith(tuple(args.only))
        and (check.sanitize or not args.sanitize)
        and not (args.quick and check.slow)
    ]


def names_in(log: Path | None) -> set[str]:
    """Checks that an earlier process has ended, or ended in."""
    if log is None or not log.exists():
        return set()
    return {json.loads(line)["name"] for line in log.read_text().splitlines()}


def main(arguments: list[str] | None = None) -> int:
    """Runs the checks; returns the exit status."""
    args = parse_arguments(arguments)
    start = time.perf_counter()
    done = names_in(args.log)
    checks = [check for check in selected(args) if check.name not in done]
    if args.list:
        print(*(check.name for check in checks), sep="\n")
        return 0
    device = torch.device(args.device)
    print(f"{ops_dcnv3.__file__}\nPyTorch {torch.__version__}, {device}, {len(checks)} checks")

    def write(entry: dict[str, object]) -> None:
        if args.log is not None:
            with args.log.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    failures = 0
    for check in checks:
        if time.perf_counter() - start > args.time_limit:
            return OUT_OF_TIME
        write({"name": check.name, "status": "started", "seconds": 0, "detail": ""})
        outcome = run_check(check, device)
        write(asdict(outcome))
        failures += outcome.status == "failed"
        print(
            f"{outcome.status:8}{outcome.seconds:8.2f} s  {outcome.name}  {outcome.detail}".rstrip()
        )
        sys.stdout.flush()
        if outcome.status == "failed" and device_is_lost(device):
            print("the device is lost: the rest needs a new process")
            return LOST
    return FAILED if failures else 0


if __name__ == "__main__":
    sys.exit(main())
