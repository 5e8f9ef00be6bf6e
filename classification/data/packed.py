"""Many byte strings as two arrays: what forked workers share without copying it.

A list of a million strings costs each worker a copy of the pages it looks at, since looking at a
string changes its reference count. Arrays have one count for all.
"""

import os
from collections.abc import Iterable, Iterator

import numpy as np


class PackedBytes:
    """A sequence of byte strings in one buffer.

    Args:
        items: The strings; an iterator's are gone when the next one is asked for.
    """

    def __init__(self, items: Iterable[bytes]) -> None:
        buffer = bytearray()  # grows by an eighth at a time, in place where the system can
        ends = [0]
        for item in items:
            buffer += item
            ends.append(len(buffer))
        self.ends = np.asarray(ends, dtype=np.int64)  # (num_items + 1,)
        self.buffer = np.frombuffer(buffer, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> bytes:
        start, end = self.ends[index : index + 2]
        return self.buffer[start:end].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))


class PackedPaths:
    """A sequence of file names in one buffer; a name need not be valid UTF-8.

    Args:
        names: The names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.packed = PackedBytes(os.fsencode(name) for name in names)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.packed[index])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
