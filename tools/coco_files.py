"""What the tools that write COCO data sets share: folders and files that are whole or absent."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from internimage.files import write_atomically


def categories(names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns COCO's list of classes: ids from 1, in the order of ``names``."""
    return [{"id": index, "name": name} for index, name in enumerate(names, 1)]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file without spaces, whole or not at all.

    Args:
        path: The file; its folder is made.
        content: Plain numbers, strings, lists and dicts; NaN and infinity are refused.

    Raises:
        ValueError: A number is not finite.
        OSError: It cannot be written.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def check_target(path: Path, *, tool: str, flag: str, overwrite: bool) -> None:
    """Refuses to write over a file, before any work is done.

    Args:
        path: What is to be written.
        tool: Who asks, and ``flag`` how, for the error.
        flag: The flag that names the file.
        overwrite: Whether it may be replaced.

    Raises:
        ValueError: There is a file and ``overwrite`` is False, or a folder.
    """
    if path.is_dir():
        raise ValueError(f"{tool}: expected {flag} a file to write, got the folder {path}")
    if path.exists() and not overwrite:
        raise ValueError(
            f"{tool}: expected {flag} a new file, got {path}, which exists; --overwrite replaces it"
        )


@contextlib.contextmanager
def whole_folder(
    out: Path, *, tool: str, overwrite: bool, content: Sequence[str]
) -> Iterator[Path]:
    """Fills a folder so that it appears when it is complete.

    The block writes to a folder beside ``out``. When it ends well, that takes the place of ``out``;
    when it does not, ``out`` is as it was. What an interrupted run has left goes at the next one.

    Args:
        out: The folder to make. It may exist and be empty.
        tool: Who asks, for the error.
        overwrite: Whether a folder with something in it may be replaced.
        content: What such a folder may hold: nothing else is ever deleted.

    Yields:
        The folder to write to.

    Raises:
        ValueError: ``out`` is a file, or holds something that is not to be replaced.
        OSError: It cannot be written.
    """
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise ValueError(f"{tool}: expected --out a folder, got the file {out}")
    held = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if held and not overwrite:
        raise ValueError(
            f"{tool}: expected --out a new or empty folder, got {out}, which holds "
            f"{', '.join(held[:4])}; --overwrite replaces it"
        )
    if foreign := [name for name in held if name not in content]:
        raise ValueError(
            f"{tool}: expected --overwrite for a folder of {', '.join(content)} alone, got {out} "
            f"with {', '.join(foreign[:4])} as well; remove that yourself"
        )
    unfinished = out.with_name(f".{out.name}.unfinished")
    replaced = out.with_name(f".{out.name}.replaced")
    for rest in (unfinished, replaced):
        if rest.exists():
            shutil.rmtree(rest)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if held:
            out.rename(replaced)
        unfinished.rename(out)  # takes the place of an empty folder, in one step
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if held:
        shutil.rmtree(replaced)
