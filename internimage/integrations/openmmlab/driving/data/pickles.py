"""Info files: pickles of numbers, texts and arrays, read without running what is in them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from internimage.files import write_atomically

# How else a damaged pickle fails.
_DAMAGE = (AttributeError, LookupError, MemoryError, OverflowError)


def _allowed() -> dict[tuple[str, str], Any]:
    """Return all that an info file may name beside what pickle itself knows."""
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        # Bytes of an array in a pickle of protocol 2, which Python 2 could read.
        ("_codecs", "encode"): _encode,
    }
    for kind in (set, frozenset, bytes, bytearray, complex):
        # The second name is Python 2's, which pickles up to protocol 2 keep.
        allowed["builtins", kind.__name__] = allowed["__builtin__", kind.__name__] = kind
    # The module got its new name in NumPy 2; a file may come from either. The first can go with the
    # last info files that NumPy 1 wrote.
    for module in ("numpy.core", "numpy._core"):
        # Asked of NumPy's own pickling: where the functions lie depends on its version.
        allowed[f"{module}.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
        allowed[f"{module}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
        allowed[f"{module}.numeric", "_frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]
    return allowed


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        try:
            # Instead of importing the name, as pickle would: only what is in the table can be
            # called.
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the file names {module}.{name}") from None


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of plain Python values and NumPy arrays; nothing that it names is run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no pickle, is cut short, or names anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_pickle: expected an existing file, got {path}")
    with path.open("rb") as file:
        try:
            return _Unpickler(file).load()
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, *_DAMAGE) as error:
            raise ValueError(
                f"read_pickle: expected a pickle of numbers, texts and arrays, got {path}: {error}"
            ) from error


def write_pickle(path: str | Path, content: Any) -> None:
    """Write a pickle that is whole or absent.

    Raises:
        OSError: The disk is full or the folder is not writable.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            pickle.dump(content, file, protocol=4)

    write_atomically(Path(path), write)
