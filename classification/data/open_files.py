"""Parts of large files, read at an offset: from any process, by any number of threads."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

MAX_OPEN = 64
"""Files kept open at once; systems allow about a thousand a process."""


class OpenFiles:
    """Large files, each opened when something is first read from it.

    Reading is ``pread``, which has no position to share: a descriptor that a worker inherits works.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, offset: int, size: int) -> bytes:
        """Returns ``size`` bytes from an offset of a file.

        Raises:
            OSError: The file cannot be read or ends before.
        """
        with self._lock:
            descriptor = self._descriptor(file)
        # Threads wait for the storage together; none closes what another one holds.
        data = os.pread(descriptor.number, size, offset)
        if len(data) < size:
            raise OSError(
                f"read: expected {size} bytes at {offset} of {self.paths[file]}, got {len(data)}"
            )
        return data

    def _descriptor(self, file: int) -> "_Descriptor":
        if file in self._open:
            self._open.move_to_end(file)
        else:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)
            self._open[file] = _Descriptor(self.paths[file])
        return self._open[file]

    def __reduce__(self) -> tuple[type["OpenFiles"], tuple[list[str]]]:
        return OpenFiles, (self.paths,)  # another process opens them anew


class _Descriptor:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: str) -> None:
        self.number = -1  # should opening fail
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)
