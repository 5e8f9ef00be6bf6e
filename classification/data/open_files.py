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
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, offset: int, size: int) -> bytes:
        """Returns ``size`` bytes from an offset of a file.

        Raises:
            OSError: The file cannot be read or ends before.
        """
        with self._lock:  # or another thread might close the file
            data = os.pread(self._descriptor(file), size, offset)
        if len(data) < size:
            raise OSError(
                f"read: expected {size} bytes at {offset} of {self.paths[file]}, got {len(data)}"
            )
        return data

    def _descriptor(self, file: int) -> int:
        if file in self._descriptors:
            self._descriptors.move_to_end(file)
        else:
            if len(self._descriptors) >= MAX_OPEN:
                os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors[file] = os.open(self.paths[file], os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[file]

    def __reduce__(self) -> tuple[type["OpenFiles"], tuple[list[str]]]:
        return OpenFiles, (self.paths,)  # another process opens them anew

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
