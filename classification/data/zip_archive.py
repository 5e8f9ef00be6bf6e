"""Zip archives: train.zip and val.zip, of class folders or with a list of paths and labels."""

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classification.data.class_folders import group_by_class, is_image_name
from classification.data.file_list import number_names, read_list
from classification.data.open_files import OpenFiles
from classification.data.packed import PackedPaths
from classification.data.source import Source

LOCAL_HEADER = struct.Struct("<4s22xHH")  # magic; lengths of the name and of the extra field
LOCAL_MAGIC = b"PK\x03\x04"


class ZipSource(Source):
    """Images in a zip archive.

    Workers read members by their offsets: the table of a million members, which zipfile keeps in
    each process, would take a gigabyte each.

    Args:
        path: The archive.
        members: The images in it.
        labels: (I,) The class of each.
        class_names: The name of each class.

    Raises:
        ValueError: A member is encrypted, or compressed by another method than deflate.
    """

    def __init__(
        self,
        path: Path,
        members: Sequence[zipfile.ZipInfo],
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
    ) -> None:
        super().__init__(labels, class_names)
        for member in members:
            plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if not plain or member.flag_bits & 1:
                raise ValueError(
                    f"ZipSource: expected members stored or deflated, without a password, "
                    f"got {member.filename} of {path}"
                )
        self.file = OpenFiles([str(path)])
        self.paths = PackedPaths(member.filename for member in members)
        self.offsets = np.array([member.header_offset for member in members], dtype=np.int64)
        self.sizes = np.array([member.compress_size for member in members], dtype=np.int64)
        self.sums = np.array([member.CRC for member in members], dtype=np.uint32)
        self.deflated = np.array([member.compress_type != zipfile.ZIP_STORED for member in members])

    def read(self, index: int) -> bytes:
        """Returns the content of a member.

        Raises:
            OSError: It is not what was put into the archive.
        """
        offset = int(self.offsets[index])
        header = self.file.read(0, offset, LOCAL_HEADER.size)
        magic, name_length, extra_length = LOCAL_HEADER.unpack(header)
        start = offset + LOCAL_HEADER.size + name_length + extra_length
        data = self.file.read(0, start, int(self.sizes[index]))
        try:
            data = zlib.decompress(data, -zlib.MAX_WBITS) if self.deflated[index] else data
        except zlib.error as error:
            raise OSError(f"ZipSource: expected a whole member, got {error}") from error
        if magic != LOCAL_MAGIC or zlib.crc32(data) != self.sums[index]:
            raise OSError(f"ZipSource: expected a whole member, got damage in {self.name(index)}")
        return data

    def name(self, index: int) -> str:
        """Returns the archive's path and the member's."""
        return f"{self.file.paths[0]}/{self.paths[index]}"


def open_zip(path: Path, half: str, *, class_names: tuple[str, ...] | None) -> ZipSource:
    """Opens a zip archive.

    Args:
        path: The archive. HALF_map.txt beside it, if there, names its images and their labels;
            otherwise its folders are the classes.
        half: "train" or "val"; one folder of that name around all others does not count.
        class_names: The name of each class, for a list; None numbers them.

    Raises:
        ValueError: It is no zip archive, a class has no image, or the list does not fit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"open_zip: expected a whole zip archive, got {path} ({error})") from error
    visible = [name for name in members if not _is_hidden(name)]
    prefix = f"{half}/" if all(name.startswith(f"{half}/") for name in visible) else ""
    list_path = path.with_name(f"{half}_map.txt")
    if not list_path.is_file():
        inner = [name.removeprefix(prefix) for name in visible]
        paths, labels, folders = group_by_class(
            (name for name in inner if "/" in name and is_image_name(name.rpartition("/")[2])),
            {name.partition("/")[0] for name in inner if "/" in name},
            where=str(path),
        )
        return ZipSource(path, [members[prefix + name] for name in paths], labels, folders)
    num_classes = None if class_names is None else len(class_names)
    listed, numbers = read_list(list_path, num_classes=num_classes)
    chosen = [members.get(name) or members.get(prefix + name) for name in listed]
    if None in chosen:
        missing = listed[chosen.index(None)]
        raise ValueError(f"open_zip: expected {missing} of {list_path} in {path}, got no such file")
    found = [member for member in chosen if member is not None]
    names = class_names or number_names(numbers, half, where=list_path)
    return ZipSource(path, found, numbers, names)


def _is_hidden(name: str) -> bool:
    """Returns whether a path has a hidden part, or is what macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
