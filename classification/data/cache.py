"""The encoded bytes of images in memory, read once at the start."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rich.console import Console
from rich.progress import track

from classification.data.packed import PackedBytes
from classification.data.source import Source

NUM_THREADS = 8  # files on a network file system wait, and can do so together
READ_AHEAD = 256


class CachedSource(Source):
    """A source that has some of its images in memory, in one buffer that forked workers share.

    An image that cannot be read is left to the source, as are those that are not in memory.

    Args:
        source: Where the images are; encoded, not as pixels, which are in memory anyway.
        indices: The images to keep.
        show_progress: Draws a progress bar meanwhile.
    """

    def __init__(self, source: Source, indices: np.ndarray, *, show_progress: bool) -> None:
        super().__init__(source.labels, source.class_names, meta=source.meta, groups=source.groups)
        self.source = source
        contents = _read_all(source, indices)
        console = Console(stderr=True)
        self.contents = PackedBytes(
            track(
                contents,
                description="reading images",
                total=len(indices),
                disable=not (show_progress and console.is_terminal),
                console=console,
            )
        )
        self.place = np.full(len(source), -1, dtype=np.int64)  # in the cache; -1: not there
        self.place[indices] = np.where(np.diff(self.contents.ends) > 0, np.arange(len(indices)), -1)

    def read(self, index: int) -> bytes | np.ndarray:
        """Returns the content of a file, from memory if it is there."""
        place = self.place[index]
        return self.source.read(index) if place < 0 else self.contents[place]

    def name(self, index: int) -> str:
        """Returns what the source calls the image."""
        return self.source.name(index)


def _read_all(source: Source, indices: np.ndarray) -> Iterator[bytes]:
    """Yields the contents in order, those that cannot be read as nothing."""

    def read(index: int) -> bytes:
        try:
            content = source.read(int(index))
        except OSError:
            return b""
        assert isinstance(content, bytes)
        return content

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for start in range(0, len(indices), READ_AHEAD):
            yield from pool.map(read, indices[start : start + READ_AHEAD])
