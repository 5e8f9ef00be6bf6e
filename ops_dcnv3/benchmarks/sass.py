"""Reads what the CUDA compiler says of its kernels: ptxas's resources, PTX, disassembled code.

Everything here is text in, numbers out; sass_report.py runs the tools.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


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
        frame, stores, loads = map(int, stack.groups())
        name = part.split("'")[1]
        found[name] = Resources(int(used[1]), frame, stores, loads, int(shared[1]) if shared else 0)
    return found


def parse_block_sizes(ptx: str) -> dict[str, int]:
    """Threads of a block by mangled name, where ``__launch_bounds__`` sets them."""
    entries = re.findall(r"\.entry (\w+)\(.*?\)\s*(.*?)\{", ptx, re.DOTALL)
    sizes = {name: re.search(r"\.maxntid (\d+)", rest) for name, rest in entries}
    return {name: int(size[1]) for name, size in sizes.items() if size}


def parse_sass(text: str) -> dict[str, list[Instruction]]:
    """Instructions by mangled name, from ``cuobjdump -sass``."""
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
        kernels[name.strip()] = code
    return kernels
