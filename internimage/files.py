"""Files that are whole or absent, never half."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new one.

    The content goes to a temporary file in the same folder, is flushed to the disk, and takes the
    name ``path`` in one step; the folder is flushed as well, so that the name survives a power cut.

    Args:
        path: the file to write or replace.
        write: writes the content to the path that it is given, an empty file of the same suffix.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path``, which it names, is as it
            was.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    # 0o666 is what open() asks for; the system takes the process's umask off it.
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        write(temporary)
        temporary.chmod(mode)  # safetensors replaces the file by a private one of its own
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        # A full disk names no file.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Return when the content of a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
