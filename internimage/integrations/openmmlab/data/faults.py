"""What a check of data reports: kinds of fault, how often, the first examples.

- ``stops``: training or evaluation ends with an exception, or computes nonsense;
- ``dropped``: it is left out without a word;
- ``noted``: all is well, and worth knowing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

Effect = Literal["stops", "dropped", "noted"]
Kinds = Mapping[str, tuple[Effect, str]]
"""Each kind of fault: its effect and what it is, in the order of reports."""

MAX_EXAMPLES = 3  # of each kind: a report stays on one screen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault in a data set.

    Args:
        kind: its name.
        effect: how much it matters.
        meaning: what it is, and what it does.
        count: how often.
        examples: the first ones, in words.
        indices: where in the data set's list they are; empty where there is no such list.
    """

    kind: str
    effect: Effect
    meaning: str
    count: int
    examples: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()

    def describe(self) -> str:
        """Return the fault in one line."""
        more = f" ({'; '.join(self.examples)})" if self.examples else ""
        return f"{self.count:,} x {self.kind}: {self.meaning}{more}"


class Findings:
    """Collects faults by kind.

    Args:
        kinds: all that there can be.
    """

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._indices: dict[str, list[int]] = {}

    def add(self, kind: str, example: str = "", index: int | None = None) -> None:
        """Note a fault.

        Args:
            kind: a key of the kinds.
            example: where it is, and what.
            index: its place in the data set's list, if it has one.
        """
        assert kind in self._kinds, kind
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if example and len(examples) < MAX_EXAMPLES:
            examples.append(example)
        # Of all, not only of those shown: `tools/check_coco.py --fix` drops them by their index.
        if index is not None:
            self._indices.setdefault(kind, []).append(index)

    def faults(self) -> tuple[Fault, ...]:
        """Return what was noted, one entry a kind, in the order of the kinds."""
        return tuple(
            Fault(
                kind=kind,
                effect=effect,
                meaning=meaning,
                count=self._counts[kind],
                examples=tuple(self._examples[kind]),
                indices=tuple(self._indices.get(kind, ())),
            )
            for kind, (effect, meaning) in self._kinds.items()
            if kind in self._counts
        )


def in_order(faults: Iterable[Fault], kinds: Kinds) -> tuple[Fault, ...]:
    """Return faults in the order of the kinds; of two of one kind the later one."""
    by_kind = {fault.kind: fault for fault in faults}
    return tuple(by_kind[kind] for kind in kinds if kind in by_kind)


def stopping(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return those that end a training or an evaluation, or spoil it."""
    return tuple(fault for fault in faults if fault.effect == "stops")


def fault_lines(faults: Iterable[Fault]) -> list[str]:
    """Return a table of the faults, a line a fact: not wrapped. Empty where there are none."""
    lines = []
    for fault in faults:
        lines.append(f"{fault.count:>9,}  {fault.effect:7}  {fault.kind}: {fault.meaning}")
        lines += [f"{'':20}    {example}" for example in fault.examples]
    return [f"{'count':>9}  {'effect':7}  found", *lines] if lines else []
