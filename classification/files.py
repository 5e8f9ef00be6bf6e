"""Files that are whole or absent, never half."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new one.

    The content goes to a temporary file beside ``path``, is flushed to the disk, and takes the name
    ``path`` in one step; the folder is flushed as well, so that the name survives a power cut.

    Args:
        path: The file to write or replace.
        write: Writes the content to the path that it is given.

    Raises:
        OSError: The disk is full or the folder is not writable; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_to_disk(path.parent)


def make_run_folder(path: Path) -> Path:
    """Makes the folder of a run and tries a write in it.

    Raises:
        ValueError: The folder cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "write_test", lambda file: file.write_bytes(b""))
        (path / "write_test").unlink()
    except OSError as error:
        raise ValueError(
            f"make_run_folder: expected a writable folder {path}, got {error.strerror}"
        ) from error
    return path


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
