"""Runs the programs that the compiler's report needs."""

from __future__ import annotations

import re
import shlex
import subprocess


def run(command: list[str]) -> str:
    """What a command printed, both streams together; its failure is an error with that."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"sass_report: {shlex.join(command)} failed:\n{done.stdout}")
    return done.stdout


def demangled(names: list[str]) -> list[str]:
    """Names as in the source, without namespaces, results and arguments."""
    lines = run(["c++filt", *names]).splitlines()
    return [re.sub(r"^void dcnv3::entry<|\s*>\(.*\)$|dcnv3::", "", line) for line in lines]
