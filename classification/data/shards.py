"""WebDataset shards: tar files in which KEY.jpg and KEY.cls, or KEY.json, make one sample.

The shards are read once from end to end to note where each image lies; after that an image is one
read at an offset, in any order, so an epoch can be resumed at any image. What was noted is kept
beside the shards, where they may be written to.
"""

import contextlib
import json
import os
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from classification.data.file_list import number_names
from classification.data.open_files import OpenFiles
from classification.data.packed import PackedPaths
from classification.data.source import IMAGE_SUFFIXES, Source

NAME_OF_HALF = {"train": "train", "val": "(?:val|validation)"}
END_OF_TAR = bytes(1024)
"""Two blocks of zeros; a file without them was cut off."""


class Sample(NamedTuple):
    """Where an image lies.

    Args:
        name: The member of the shard.
        offset: Where its bytes begin, from the start of the shard.
        size: How many they are.
        label: Its class.
    """

    name: str
    offset: int
    size: int
    label: int


class ShardIndex(NamedTuple):
    """Where all images of a half lie.

    Args:
        stamps: Name, size in bytes and time of change of each shard, as text.
        shards: (I,) The shard of each image, ascending.
        offsets: (I,) Where its bytes begin.
        sizes: (I,) How many they are.
        labels: (I,) Its class.
        name_bytes: All names.
        name_ends: (I + 1,) Where they end.
    """

    stamps: np.ndarray
    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    name_bytes: np.ndarray
    name_ends: np.ndarray


class ShardSource(Source):
    """Images in tar files.

    Args:
        paths: The shards.
        index: Where the images lie.
        class_names: The name of each class.
    """

    def __init__(self, paths: Sequence[Path], index: ShardIndex, class_names: Sequence[str]):
        super().__init__(index.labels, class_names, groups=index.shards)
        self.files = OpenFiles([str(path) for path in paths])
        self.index = index

    def read(self, index: int) -> bytes:
        """Returns the content of a member."""
        where = self.index
        offset, size = int(where.offsets[index]), int(where.sizes[index])
        return self.files.read(int(where.shards[index]), offset, size)

    def name(self, index: int) -> str:
        """Returns the shard's path and the member's name."""
        start, end = self.index.name_ends[index : index + 2]
        member = os.fsdecode(self.index.name_bytes[start:end].tobytes())
        return f"{self.files.paths[self.index.shards[index]]}/{member}"


def find_shards(data_path: Path, half: str) -> list[Path]:
    """Returns the shards of a half, sorted: *train-*.tar, and *val-*.tar or *validation-*.tar."""
    # A hidden one is what a killed process left half written.
    pattern = re.compile(rf"(?!\.)(?:.*[-_.])?{NAME_OF_HALF[half]}[-_.].*\.tar")
    return sorted(path for path in data_path.iterdir() if pattern.fullmatch(path.name))


def open_shards(
    paths: Sequence[Path], half: str, *, class_names: tuple[str, ...] | None
) -> ShardSource:
    """Opens the images of shards.

    Args:
        paths: The shards, at least one, in one folder.
        half: "train" or "val": what the file with the index is called by.
        class_names: The name of each class; None numbers them up to the highest label.

    Raises:
        ValueError: A shard is damaged or cut off, a sample lacks its image or label, or a label
            is out of range.
    """
    index_path = paths[0].with_name(f".{half}_shards.npz")
    stamps = np.array([_stamp(path) for path in paths])
    index = _load_index(index_path, stamps)
    if index is None:
        index = _build_index(paths, stamps)
        _save_index(index_path, index)
    names = class_names or number_names(index.labels, half, where=paths[0])
    wrong = np.flatnonzero((index.labels < 0) | (index.labels >= len(names)))
    if len(wrong):
        shard, label = paths[index.shards[wrong[0]]], index.labels[wrong[0]]
        raise ValueError(f"open_shards: expected 0 <= label < {len(names)} in {shard}, got {label}")
    return ShardSource(paths, index, names)


def scan_shard(path: Path) -> list[Sample]:
    """Returns the samples of a shard in their order.

    Raises:
        ValueError: The shard is damaged or cut off, or a sample lacks its image or its label.
    """
    samples = []
    try:
        with open(path, "rb") as file:
            for key, members in _group_by_key(path, file):
                image = [member for suffix, member in members if suffix in IMAGE_SUFFIXES]
                label = _read_label(path, key, members, file)
                if len(image) != 1 or label is None:
                    got = ", ".join(suffix for suffix, _ in members)
                    raise ValueError(
                        f"scan_shard: expected one image and a .cls or .json with its label for "
                        f"each key of {path}, got {key} with {got}"
                    )
                samples.append(Sample(image[0].name, image[0].offset_data, image[0].size, label))
    except tarfile.TarError as error:
        raise ValueError(
            f"scan_shard: expected a whole tar file, got {path}, damaged or cut off ({error})"
        ) from error
    return samples


Member = tuple[str, tarfile.TarInfo]  # suffix in lower case, and where it is


def _group_by_key(path: Path, file: IO[bytes]) -> Iterator[tuple[str, list[Member]]]:
    """Yields the members that follow each other with the same key: all before the first dot."""
    key, members = "", list[Member]()
    with tarfile.open(path, "r:", fileobj=file) as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not member.isfile() or not stem:
                continue
            new_key = f"{folder}/{stem}" if folder else stem
            if new_key != key and members:
                yield key, members
                members = []
            key = new_key
            members.append((f".{suffix.lower()}", member))
        # tarfile takes a header that it cannot read for the end, unless it is the first.
        if os.pread(file.fileno(), len(END_OF_TAR), tar.offset) != END_OF_TAR:
            raise tarfile.ReadError(f"no member and no end at byte {tar.offset}")
    if members:
        yield key, members


def _read_label(path: Path, key: str, members: Sequence[Member], file: IO[bytes]) -> int | None:
    """Returns the label of a sample, or None where no member holds one."""
    by_suffix = dict(members)
    for suffix in (".cls", ".json"):
        if suffix not in by_suffix:
            continue
        content = os.pread(file.fileno(), by_suffix[suffix].size, by_suffix[suffix].offset_data)
        try:
            value = json.loads(content)
        except ValueError:
            value = content
        if suffix == ".json" and isinstance(value, dict):
            value = value.get("label", value.get("cls"))
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ValueError(
            f"scan_shard: expected a whole number in {key}{suffix} of {path}"
            f"{' as label' if suffix == '.json' else ''}, got {value!r}"
        )
    return None


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _build_index(paths: Sequence[Path], stamps: np.ndarray) -> ShardIndex:
    console = Console(stderr=True)
    bar = track(paths, "looking through shards", console=console, disable=not console.is_terminal)
    shards = [scan_shard(path) for path in bar]
    samples = [sample for shard in shards for sample in shard]
    if not samples:
        raise ValueError(f"open_shards: expected samples in {paths[0]} ..., got none")
    names = PackedPaths(sample.name for sample in samples).packed
    return ShardIndex(
        stamps=stamps,
        shards=np.repeat(np.arange(len(paths), dtype=np.int32), [len(shard) for shard in shards]),
        offsets=np.array([sample.offset for sample in samples], dtype=np.int64),
        sizes=np.array([sample.size for sample in samples], dtype=np.int64),
        labels=np.array([sample.label for sample in samples], dtype=np.int64),
        name_bytes=names.buffer,
        name_ends=names.ends,
    )


def _load_index(path: Path, stamps: np.ndarray) -> ShardIndex | None:
    """Returns the index that an earlier run left, if it is of these shards as they are now."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            index = ShardIndex(**{name: arrays[name] for name in ShardIndex._fields})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # none there, or not to be read: it is made anew
    return index if np.array_equal(index.stamps, stamps) else None


def _save_index(path: Path, index: ShardIndex) -> None:
    """Writes the index at once or not at all: other ranks write the same."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp", prefix=path.stem)
    except OSError:
        return  # a folder to read alone: each run reads the shards anew
    try:
        with open(descriptor, "wb") as file:
            np.savez(file, **index._asdict())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
