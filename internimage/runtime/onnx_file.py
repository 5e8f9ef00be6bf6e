"""What an ONNX file says about itself, read without the package ``onnx``.

An ONNX file is one message of Protocol Buffers: fields one after the other, each behind its number
and its kind. The graph with its gigabytes of weights is one field, which is passed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_PROPERTY = 14
"""Number of the field ``metadata_props`` of ONNX's ``ModelProto``."""
_GRAPH = 7  # a file without it is something else whose bytes happen to be fields
_KEY, _VALUE = 1, 2  # of a property

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Kinds of fields."""

_LONGEST = 2**26
"""Bytes of a property; the names of a million classes are less."""


def read_property(path: Path, key: str) -> str | None:
    """Return a property of an ONNX model, None where it has none of that name.

    Args:
        path: the file.
        key: name of the property.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is a folder or no ONNX file.
    """
    if path.is_dir():
        raise ValueError(f"read_property: expected an ONNX file, got the folder {path}")
    if not path.exists():
        raise FileNotFoundError(f"read_property: expected an ONNX file, got none at {path}")
    try:
        with path.open("rb") as file:
            properties = _properties(file, os.fstat(file.fileno()).st_size)
    except _BrokenError as error:
        raise ValueError(
            f"read_property: expected an ONNX file, got {path}, which is none or is truncated "
            f"({error})"
        ) from error
    return properties.get(key)


class _BrokenError(Exception):
    """The bytes are no message, or no model."""


def _properties(file: BinaryIO, end: int) -> dict[str, str]:
    properties: dict[str, str] = {}
    has_graph = False
    while file.tell() < end:
        number, kind = _tag(file)
        if kind != _BYTES:
            _skip(file, kind)
            continue
        length = _varint(file)
        if length > end - file.tell():
            raise _BrokenError(f"field {number} is longer than the file")
        has_graph |= number == _GRAPH
        # Too long a one is passed over like a graph: the file may lie about anything.
        if number == _PROPERTY and length <= _LONGEST:
            name, value = _pair(file, file.tell() + length)
            properties[name] = value
        else:
            file.seek(length, os.SEEK_CUR)
    if not has_graph:
        raise _BrokenError("it holds no graph")
    return properties


def _pair(file: BinaryIO, end: int) -> tuple[str, str]:
    texts = {_KEY: "", _VALUE: ""}
    while file.tell() < end:
        number, kind = _tag(file)
        if kind != _BYTES:
            _skip(file, kind)
            continue
        length = _varint(file)
        if length > end - file.tell():
            raise _BrokenError("a property is longer than its field")
        try:
            texts[number] = file.read(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _BrokenError("a property is no text") from error
    return texts[_KEY], texts[_VALUE]


def _tag(file: BinaryIO) -> tuple[int, int]:
    """Return the number and the kind of the field that follows."""
    tag = _varint(file)
    if tag >> 3 == 0:
        raise _BrokenError("a field has no number")
    return tag >> 3, tag & 7


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _VARINT:
        _varint(file)
    elif kind in (_FIXED32, _FIXED64):
        file.seek(4 if kind == _FIXED32 else 8, os.SEEK_CUR)
    else:  # 3 and 4 are groups, which ONNX has none of; there is no 6 or 7
        raise _BrokenError(f"a field is of kind {kind}")


def _varint(file: BinaryIO) -> int:
    """Return a number written in groups of seven bits, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):  # ten groups hold 64 bits
        byte = file.read(1)
        if not byte:
            raise _BrokenError("it ends within a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _BrokenError("a number is too long")
