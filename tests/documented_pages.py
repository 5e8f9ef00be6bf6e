"""A page of the documentation, done as its reader would: its commands, as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FEW_STEPS = shlex.split(
    "train_cfg.max_iters=2 train_cfg.val_interval=2 default_hooks.checkpoint.interval=2"
)


class Page:
    """A page on own data.

    Args:
        name: its file in docs/.
    """

    def __init__(self, name: str) -> None:
        self.text = (ROOT / "docs" / name).read_text(encoding="utf-8")

    def commands(self, start: str, *, digits: bool = False) -> list[list[str]]:
        """The commands of the page, or of its part on digits, that begin so."""
        text = self.text.split("## Try it now")[1 if digits else 0]
        blocks = re.findall(r"(?:^ {4}\S.*\n(?:^ {5,}.+\n)*)", text, re.MULTILINE)
        found = [block for block in blocks if block.strip().startswith(start)]
        assert found, start
        return [shlex.split(block.replace("\\\n", " ")) for block in found]

    def config(self) -> str:
        """The one config that the page shows, its base with the whole path."""
        (text,) = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        return str(text).replace('"../', f'"{ROOT}/')

    def settings(self) -> list[str]:
        """The dotted keys that the page gives a value."""
        return re.findall(r"`([a-z_]+\.[\w.]+)=\S+`", self.text)

    def kinds_of_fault(self) -> set[str]:
        """What the table of errors names that may be a kind of fault."""
        rows = self.text.split("## What an error means")[1]
        return set(re.findall(r"`([a-z][a-z ]+[a-z0])`", rows))


def run(words: list[str], places: dict[str, str]) -> str:
    """Runs a command with other paths; returns what it printed."""
    words = moved(words, places)
    if words[0] == "internimage":
        words = ["-m", "internimage.cli", *words[1:]]
    else:
        assert words.pop(0) == "python"
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def moved(words: list[str], places: dict[str, str]) -> list[str]:
    """Returns a command with other paths: each key of ``places`` is replaced, in their order."""
    for old, new in places.items():
        words = [word.replace(old, new) for word in words]
    return words


def holder_of(config: Any, key: str) -> tuple[Any, str]:
    """Returns the part of a config that a dotted key names an entry of, and the entry's name."""
    parent, _, name = key.rpartition(".")
    for part in parent.split("."):
        config = config[int(part)] if part.isdecimal() else config[part]
    return config, name
