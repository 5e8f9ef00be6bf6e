"""Reads what the CUDA compiler says of its kernels: ptxas's resources, PTX, disassembled code.

Everything here is text in, numbers out; sass_report.py runs the tools.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Resources:
    """What ptxas allotted to a thread, and to a block in shared memory, in bytes."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int  # known at compile time; what a launch asks for comes on top


@dataclass(frozen=True)
class Instruction:
    """One line of disassembly."""

    address: int
    predicate: str  # "@!P0"; empty when every active thread executes it
    opcode: str  # "LDG.E.128.CONSTANT"
    operands: str

    @property
    def name(self) -> str:
        """The opcode without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def target(self) -> int | None:
        """Address that a branch leads to; None for what is no branch or computes it."""
        match = re.search(r"0x([0-9a-f]+)$", self.operands) if self.name == "BRA" else None
        return int(match[1], 16) if match else None

    @property
    def width(self) -> int:
        """Bits that one thread reads or writes."""
        for part in self.opcode.split("."):
            if part in ("64", "128"):
                return int(part)
            if match := re.fullmatch(r"[US](8|16)", part):
                return int(match[1])
        return 32


def parse_ptxas(text: str) -> dict[str, Resources]:
    """Resources by mangled name, from the messages of ``ptxas -v``."""
    found = {}
    for part in text.split("Compiling entry function ")[1:]:
        used = re.search(r"Used (\d+) registers", part)
        stack = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        if used is None or stack is None:
            raise ValueError(f"parse_ptxas: expected registers and spills, got {part[:200]!r}")
        shared = re.search(r"(\d+) bytes smem", part)
        found[part.split("'")[1]] = Resources(
            int(used[1]), *map(int, stack.groups()), int(shared[1]) if shared else 0
        )
    return found


def parse_block_sizes(ptx: str) -> dict[str, int]:
    """Threads of a block by mangled name, where ``__launch_bounds__`` sets them."""
    entries = re.findall(r"\.entry (\w+)\(.*?\)\s*(.*?)\{", ptx, re.DOTALL)
    sizes = {name: re.search(r"\.maxntid (\d+)", rest) for name, rest in entries}
    return {name: int(size[1]) for name, size in sizes.items() if size}


def parse_sass(text: str) -> dict[str, Code]:
    """Code by mangled name, from ``cuobjdump -sass``."""
    line = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?\w+)\s+)?([A-Z]\S*)\s*(.*?)\s*;", re.M)
    kernels = {}
    for part in re.split(r"^\s*Function : ", text, flags=re.M)[1:]:
        name, _, body = part.partition("\n")
        code = [
            Instruction(int(address, 16), predicate or "", opcode, operands)
            for address, predicate, opcode, operands in line.findall(body)
        ]
        # behind the last instruction: a branch to itself and empty ones, which are never reached
        while code and (code[-1].name == "NOP" or code[-1].target == code[-1].address):
            code.pop()
        kernels[name.strip()] = Code(code)
    return kernels


@dataclass
class Code:
    """The instructions of one kernel."""

    instructions: list[Instruction]
    by_address: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.by_address = {found.address: i for i, found in enumerate(self.instructions)}

    def count(self, *names: str, width: int | None = None) -> int:
        """Instructions of these names, and of this width."""
        return sum(
            found.name in names and (width is None or found.width == width)
            for found in self.instructions
        )

    @cached_property
    def loops(self) -> list[tuple[int, int]]:
        """First and last index of each outermost loop."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(self._all_loops):
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return merged

    @cached_property
    def main_loop(self) -> tuple[int, int] | None:
        """The outermost loop with the longest turn."""
        return max(self.loops, key=lambda loop: len(self.path(*loop)), default=None)

    @cached_property
    def points_loop(self) -> tuple[int, int] | None:
        """The innermost loop in the main one whose lanes hand each other a point."""
        if self.main_loop is None:
            return None
        handing = [
            (first, last)
            for first, last in self._all_loops
            if self.main_loop[0] < first and last < self.main_loop[1]
            if any(found.opcode == "SHFL.IDX" for found in self.instructions[first:last])
        ]
        return min(handing, key=lambda loop: loop[1] - loop[0], default=None)

    @cached_property
    def _all_loops(self) -> list[tuple[int, int]]:
        return [
            (self.by_address[found.target], i)
            for i, found in enumerate(self.instructions)
            if found.target is not None and found.target < found.address
        ]

    def executed(self, turns: list[int], points: int) -> list[Instruction]:
        """What a warp executes from the start to the end, in the fast case.

        Args:
            turns: Of each outermost loop.
            points: Turns of the loop over points in each turn of the main loop; 0 without one.

        Raises:
            ValueError: If the code has not these loops.
        """
        expected = (len(turns), bool(points))
        if (found := (len(self.loops), self.points_loop is not None)) != expected:
            raise ValueError(
                f"executed: expected loops, loop over points = {expected}, got {found}"
            )
        last = max(
            i for i, found in enumerate(self.instructions) if found.name == "EXIT"
        )  # behind it: subroutines
        way = self.path(0, last)
        for loop, count in zip(self.loops, turns, strict=True):
            way += self.path(*loop) * (count - 1)
            if points and self.points_loop and loop == self.main_loop:
                way += self.path(*self.points_loop) * (count * (points - 1))
        return way

    def path(self, first: int, last: int) -> list[Instruction]:
        """The instructions from one to another, both included, that the fast case executes.

        Where the way forks, that is the branch with more loads of 16 bytes that no predicate guards
        (all corners inside the image), then the one with more sums in shared memory (inside the
        window), then with fewer calls (no divisions with subnormal numbers), then the longer one.
        Loops are gone through once.
        """
        best: dict[int, tuple[tuple[int, ...], int | None]] = {}
        for i in range(last, first - 1, -1):
            ways: list[tuple[tuple[int, ...], int | None]] = [
                (best[step][0], step) for step in self._steps(i, last) if step in best
            ]
            if i == last:
                ways = [((0, 0, 0, 0), None)]
            if ways:
                score, step = max(ways, key=lambda way: way[0])
                found = self.instructions[i]
                wide = found.name == "LDG" and found.width == 128 and not found.predicate
                gain = (wide, found.name == "ATOMS", -(found.name == "CALL"), 1)
                best[i] = (tuple(map(sum, zip(score, gain, strict=True))), step)
        way: list[Instruction] = []
        at: int | None = first if first in best else None
        while at is not None:
            way.append(self.instructions[at])
            at = best[at][1]
        return way

    def _steps(self, i: int, last: int) -> list[int]:
        """Indices of the instructions that may follow, forward and not beyond ``last``."""
        found, steps = self.instructions[i], []
        if found.predicate or found.name not in ("BRA", "EXIT", "RET"):
            steps.append(i + 1)
        elif found.name == "BRA" and re.match(r"!?U?P\d", found.operands):
            steps.append(i + 1)  # the condition stands among the operands
        if found.target in self.by_address and self.by_address[found.target] > i:
            steps.append(self.by_address[found.target])
        return [step for step in steps if step <= last]
