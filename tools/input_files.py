"""What the tools that read own data share: class names, images by name, a list of mistakes."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

MAX_SHOWN = 20  # mistakes; a wrong flag makes one of every line
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Mistakes:
    """Collects what is wrong with the input, so that one run shows all of it.

    Args:
        tool: The tool's name.
    """

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self._lines: list[str] = []

    def add(self, path: Path, text: str, *, line: int | None = None) -> None:
        """Notes a mistake.

        Args:
            path: The file that has it.
            text: ``expected <rule>, got <value>``.
            line: Where, from 1; None where a file has no lines that matter.
        """
        where = f"{path}" if line is None else f"{path}:{line}"
        self._lines.append(f"{where}: {text}")

    def stop_if_any(self) -> None:
        """Prints a line a mistake and ends the tool.

        Raises:
            ValueError: There is a mistake.
        """
        if not self._lines:
            return
        for line in self._lines[:MAX_SHOWN]:
            print(f"{self.tool}: {line}", file=sys.stderr)
        rest = len(self._lines) - MAX_SHOWN
        more = f", of which {rest:,} are not shown" if rest > 0 else ""
        raise ValueError(f"{len(self._lines):,} mistakes{more}; nothing was written")


def read_class_names(words: Sequence[str], *, tool: str) -> tuple[str, ...]:
    """Returns class names that are given as such, or in a file.

    Args:
        words: The names; or one file, a name a line, or YAML with ``names`` as YOLO has it.
        tool: Who asks, for the error.

    Raises:
        ValueError: The file holds no names, or a name is there twice.
        OSError: It cannot be read.
    """
    names = list(words)
    path = Path(words[0])
    if len(words) == 1 and path.suffix in (".yaml", ".yml"):
        names = _names_of_yaml(path, tool=tool)
    elif len(words) == 1 and (path.is_file() or path.suffix in (".txt", ".names")):
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        names = [name for name in names if name]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{tool}: expected --classes with names that differ, got {', '.join(names) or 'none'}"
        )
    return tuple(names)


def _names_of_yaml(path: Path, *, tool: str) -> list[str]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{tool}: expected a YAML file, got {path} ({error})") from error
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(
            f"{tool}: expected {path} with names: a list, or a name for each of 0, 1, ...; got "
            f"{names!r}"
        )
    return [str(name) for name in names]


def images_by_stem(folder: Path) -> dict[str, str]:
    """Returns the path of each image below a folder, relative to it, by the same without suffix."""
    found = {}
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                relative = Path(root, name).relative_to(folder)
                found[(relative.parent / stem).as_posix()] = relative.as_posix()
    return found
