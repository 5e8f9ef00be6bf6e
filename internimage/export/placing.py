"""Files that appear when they are right: a model and, beyond 2 GB, the weights beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internimage.files import flush_to_disk

MOST_BYTES_IN_ONE_FILE = 2**31 - 2**24
"""A protobuf message ends at 2 GiB; the rest is for all but the weights."""

_SMALLEST_EXTERNAL = 1024
"""Bytes of a tensor that moves out of the model when the weights do."""

FAILED = ".failed"
"""Follows the name of a file that differs too much and is kept."""

_HASH_BLOCK = 2**24  # bytes: the weights are gigabytes


def check_output(path: Path) -> None:
    """Check that a file can be written there, before any work is done.

    Raises:
        FileNotFoundError: its folder does not exist.
        OSError: the folder is not writable, or ``path`` is a folder itself.
        ValueError: the suffix is not that of an ONNX file.
    """
    with staging_folder(path):
        pass


@contextlib.contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """A folder for the time of the export, on the disk that the file is to be on.

    Args:
        path: the file to come.

    Raises:
        FileNotFoundError: its folder does not exist.
        OSError: the folder is not writable, or ``path`` is a folder itself.
        ValueError: the suffix is not that of an ONNX file.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"export_onnx: expected a path that ends in .onnx, got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"export_onnx: expected a file as output, got the folder {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"export_onnx: expected an existing folder, got {path.parent}")
    # Beside the file, since os.replace() does not cross disks, and of a random name, since another
    # export may write the same file.
    folder = path.with_name(f".{path.stem}.{secrets.token_hex(8)}")
    try:
        folder.mkdir()
    except OSError as error:
        raise OSError(
            f"export_onnx: expected a writable folder, got {path.parent} ({error.strerror})"
        ) from error
    try:
        yield folder
    except OSError as error:
        if error.errno is not None and str(folder) in str(error.filename or folder):
            error.filename = str(path)  # a full disk names no file, or one that nobody asked for
        raise
    finally:
        # What cannot be removed must not hide the error that led here.
        shutil.rmtree(folder, ignore_errors=True)


def save(model: Any, path: Path) -> None:
    """Write an ``onnx_ir.Model``; its weights go beside it where they are too large for one file.

    The weights' file is called after its content, so that an older model beside it keeps its own.
    """
    import onnx_ir as ir

    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if weights <= MOST_BYTES_IN_ONE_FILE:
        ir.save(model, path)
        flush_to_disk(path)
        return
    data = path.with_suffix(".data")
    ir.save(model, path, external_data=data.name, size_threshold_bytes=_SMALLEST_EXTERNAL)
    named = path.with_name(f"{path.stem}.{_hash(data)}.data")
    os.replace(data, named)
    _point_to(path, named.name)
    flush_to_disk(named)
    flush_to_disk(path)


def place(staged: Path, path: Path) -> None:
    """Give a staged file, and the weights beside it, their names for good; all or nothing.

    Weights that the file at ``path`` had so far and the new one has not are removed.

    Args:
        staged: called as the file of a good export is.
        path: that file, or the one that is kept where it differs, see :data:`FAILED`.
    """
    former = external_files(path) if path.is_file() else set()
    wanted = external_files(staged)
    # The weights first and the old ones last: whenever it stops, the model at `path` has its own.
    for name in wanted:
        os.replace(staged.with_name(name), path.with_name(name))
    os.replace(staged, path)
    flush_to_disk(path.parent)
    # Equal weights have one file: the good export's may be those of the one that was kept.
    both = {path.with_name(staged.name), path.with_name(f"{staged.name}{FAILED}")}
    shared = [external_files(other) for other in both - {path} if other.is_file()]
    for name in former - wanted.union(*shared):
        # Only what save() has named: another program's model may share its file, or lie about it.
        if name.startswith(f"{staged.stem}.") and name.endswith(".data"):
            path.with_name(name).unlink(missing_ok=True)


def external_files(path: Path) -> set[str]:
    """Return the names of the files that hold the weights of a model, if any do."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:  # whatever was there, it is no model
        return set()
    return {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _point_to(path: Path, name: str) -> None:
    import onnx

    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    path.write_bytes(model.SerializeToString())


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:12]
