"""What an export has to say for itself."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far apart the outputs of a file and of PyTorch are.

    Args:
        value: the number.
        unit: what it is a number of.
        remark: what else is to be said, if anything.
    """

    value: float
    unit: str
    remark: str = ""

    def __str__(self) -> str:
        """Return the number with its unit and the remark."""
        return f"{self.value:.2g} {self.unit}" + (f" ({self.remark})" if self.remark else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of an exported file with eager PyTorch.

    Args:
        shapes: of the inputs, in words.
        found: how far apart the outputs were.
    """

    shapes: str
    found: Difference

    @property
    def difference(self) -> float:
        """The number alone."""
        return self.found.value


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport:
    """An exported file that has been linted, run and compared.

    Args:
        path: the file.
        nodes: how often each operator occurs in it.
        size: bytes, external data included.
        checks: its comparisons with eager PyTorch; empty where its operator runs nowhere here.
        tolerance: the largest difference that was allowed.
        seconds: duration of the whole export.
        summary: what was exported, a line.
    """

    path: Path
    nodes: Counter[str]
    size: int
    checks: Sequence[Check]
    tolerance: float
    seconds: float
    summary: str

    @property
    def transposes(self) -> int:
        """Nodes that move data only."""
        return self.nodes["Transpose"]

    @property
    def max_difference(self) -> float:
        """The largest of all checks; NaN where one is, or where there was none."""
        found = [check.difference for check in self.checks]
        # max() alone passes over a NaN that does not come first.
        return max(found, key=lambda value: (math.isnan(value), value), default=math.nan)

    def __str__(self) -> str:
        """Return what commands print."""
        lines = [
            f"{self.path}: {self.summary}",
            f"  {self.nodes.total()} nodes, {self.transposes} of them transposes; "
            f"{self.size / 2**20:.1f} MiB; {self.seconds:.0f} s",
        ]
        lines += [
            f"  difference to PyTorch {check.found} at {check.shapes}" for check in self.checks
        ]
        if not self.checks:
            lines.append("  not compared with PyTorch")
        return "\n".join(lines)
