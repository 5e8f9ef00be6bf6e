"""What a warp executes of a compiled kernel: its loops, and its way where the code forks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from sass import Instruction


@dataclass(frozen=True)
class Loop:
    """Numbers of instructions: of the first, of those that end a turn, of all."""

    head: int
    ends: frozenset[int]
    body: frozenset[int]


@dataclass(frozen=True)
class FastCase:
    """Which way is taken where the code forks: patterns of opcodes.

    First fewest rare ones, then most wanted ones that no predicate guards, then the longest way.
    By default: no calls (divisions with subnormal numbers) and many loads of 16 bytes (unguarded:
    all corners inside the image).
    """

    rare: str = "CALL"
    wanted: str = r"LDG\..*128"


DEFAULT_CASE = FastCase()


@dataclass
class Code:
    """The instructions of one kernel, by their numbers from the start."""

    instructions: list[Instruction]

    def count(self, *names: str, width: int | None = None) -> int:
        """Instructions of these names, and of this width."""
        return sum(
            found.name in names and (width is None or found.width == width)
            for found in self.instructions
        )

    @cached_property
    def loops(self) -> list[Loop]:
        """The outermost loops, in the order of the code."""
        return [
            loop
            for loop in self._all_loops
            if not any(loop.body < other.body for other in self._all_loops)
        ]

    @cached_property
    def main_loop(self) -> Loop | None:
        """The outermost loop with the longest turn."""
        return max(self.loops, key=lambda loop: len(self.turn(loop)), default=None)

    @cached_property
    def points_loop(self) -> Loop | None:
        """The innermost loop in the main one whose lanes hand each other a point."""
        return self._smallest_inside(lambda names: "SHFL.IDX" in names)

    @cached_property
    def clearing_loop(self) -> Loop | None:
        """The innermost loop in the main one that stores to shared memory and loads nothing."""
        return self._smallest_inside(
            lambda names: (
                any(name.startswith("STS") for name in names)
                and not any(name.startswith(("LD", "ATOM", "BAR")) for name in names)
            )
        )

    def _smallest_inside(self, fits: Callable[[set[str]], bool]) -> Loop | None:
        inside = [
            loop
            for loop in self._all_loops
            if self.main_loop and loop.body < self.main_loop.body
            if fits({self.instructions[i].opcode for i in loop.body})
        ]
        return min(inside, key=lambda loop: len(loop.body), default=None)

    def turn(self, loop: Loop, case: FastCase = DEFAULT_CASE) -> list[Instruction]:
        """What one turn of a loop executes, loops inside it once."""
        return self._path(loop.head, loop.ends, loop.body, case)

    def executed(
        self, turns: list[int], *, points: int = 0, stores: int = 0, case: FastCase = DEFAULT_CASE
    ) -> list[Instruction]:
        """What a warp executes from the start to the end.

        Args:
            turns: Of each outermost loop; 0 for one that ``case`` avoids.
            points: Sampling points that a turn of the main loop goes through, by a loop or one
                after the other; 0 where lanes hand each other none.
            stores: By which a thread clears its shared memory in each turn of the main loop.
            case: The way.

        Raises:
            ValueError: If the code has other loops.
        """
        if len(self.loops) != len(turns):
            raise ValueError(f"executed: expected loops = {len(turns)}, got {len(self.loops)}")
        everything = frozenset(range(len(self.instructions)))
        exits = frozenset(i for i in self._reached if self.instructions[i].name == "EXIT")
        way = self._path(0, exits, everything, case)
        for loop, count in zip(self.loops, turns, strict=True):
            turn = self.turn(loop, case)
            way += turn * max(count - 1, 0)
            if loop != self.main_loop:
                continue
            if points and self.points_loop is not None:
                way += self.turn(self.points_loop, case) * (count * (points - 1))
            elif sum(found.opcode == "SHFL.IDX" for found in turn) < points:
                raise ValueError(f"executed: expected a loop over {points} points, got none")
            if stores and self.clearing_loop is not None:
                clearing = self.turn(self.clearing_loop, case)
                at_once = sum(found.name == "STS" for found in clearing)
                way += clearing * (count * (math.ceil(stores / at_once) - 1))
            elif sum(found.name == "STS" for found in turn) < stores:
                raise ValueError(f"executed: expected a loop over {stores} stores, got none")
        return way

    def _path(
        self, first: int, ends: frozenset[int], within: frozenset[int], case: FastCase
    ) -> list[Instruction]:
        """The instructions from one to an end, both included."""
        best: dict[int, tuple[tuple[int, ...], int | None]] = {}
        for i in reversed(walk(self._once)[0]):
            if i not in within:
                continue
            ways: list[tuple[tuple[int, ...], int | None]] = [
                (best[step][0], step) for step in self._once[i] if step in best
            ]
            if i in ends:
                ways.append(((0, 0, 0), None))
            if ways:
                score, step = max(ways, key=lambda way: way[0])
                found = self.instructions[i]
                rare = re.match(case.rare, found.opcode) is not None
                wanted = not found.predicate and re.match(case.wanted, found.opcode) is not None
                best[i] = ((score[0] - rare, score[1] + wanted, score[2] + 1), step)
        way: list[Instruction] = []
        at: int | None = first if first in best else None
        while at is not None:
            way.append(self.instructions[at])
            at = best[at][1]
        return way

    @cached_property
    def _steps(self) -> list[list[int]]:
        """The numbers of the instructions that may follow each one."""
        numbers = {found.address: i for i, found in enumerate(self.instructions)}
        steps: list[list[int]] = []
        for i, found in enumerate(self.instructions):
            # a branch's condition may stand among its operands, too
            guarded = found.predicate or re.match(r"!?U?P\d", found.operands)
            goes_on = found.name not in ("BRA", "EXIT", "RET") or guarded
            steps.append([i + 1] if goes_on and i + 1 < len(self.instructions) else [])
            if found.target in numbers:
                steps[-1].append(numbers[found.target])
        return steps

    @cached_property
    def _reached(self) -> list[int]:
        return walk(self._steps)[0]

    @cached_property
    def _all_loops(self) -> list[Loop]:
        return self._loops_and_once[0]

    @property
    def _once(self) -> list[list[int]]:
        """The steps, but where one leads back, those that leave the loop instead."""
        return self._loops_and_once[1]

    @cached_property
    def _loops_and_once(self) -> tuple[list[Loop], list[list[int]]]:
        order, returns = walk(self._steps)
        before: dict[int, list[int]] = {}
        for i in order:
            for step in self._steps[i]:
                before.setdefault(step, []).append(i)
        ends: dict[int, set[int]] = {head: set() for _, head in returns}
        for end, head in returns:
            ends[head].add(end)
        bodies: dict[int, set[int]] = {}
        for head in ends:
            bodies[head], waiting = {head}, list(ends[head])
            while waiting:
                i = waiting.pop()
                if i not in bodies[head]:
                    bodies[head].add(i)
                    waiting += before[i]
        once = [
            [step for step in steps if (i, step) not in returns]
            for i, steps in enumerate(self._steps)
        ]
        # from the inside out: who ends a turn of a loop may end one of the loop around it, too
        for head in sorted(ends, key=lambda head: len(bodies[head])):
            leaving = [
                (i, step)
                for i in bodies[head]
                for step in self._steps[i]
                if step not in bodies[head]
            ]
            for i, step in leaving:
                if (i, step) in returns:
                    ends[step] |= ends[head]
                else:
                    for end in ends[head]:
                        once[end].append(step)
        loops = [Loop(h, frozenset(ends[h]), frozenset(bodies[h])) for h in sorted(ends)]
        return loops, once


def walk(steps: list[list[int]]) -> tuple[list[int], set[tuple[int, int]]]:
    """Goes from number 0 along the steps, as deep as they lead.

    Returns:
        What was reached, each number before those that follow it, and the steps back: those to a
        number that the walk had come through. In compiled code, which has no jumps into loops, they
        lead to the heads of loops. Blocks for rare cases lie behind the code that they return to;
        that is no step back.
    """
    order: list[int] = []
    returns: set[tuple[int, int]] = set()
    done = {0: False}
    stack = [(0, iter(steps[0]))]
    while stack:
        i, left = stack[-1]
        step = next(left, None)
        if step is None:
            done[i] = True
            order.append(i)
            stack.pop()
        elif step not in done:
            done[step] = False
            stack.append((step, iter(steps[step])))
        elif not done[step]:
            returns.add((i, step))
    return order[::-1], returns
