"""File lists: a text file with a line "path label" for each image."""

import io
import zipfile
from pathlib import Path

import numpy as np

from classification.data.source import FileSource

NUM_TRIED = 20
"""So many paths are tried to find the folder that a list is relative to: one may be missing."""


def find_list(data_path: Path, half: str) -> Path | None:
    """Returns the list of a half, "train" or "val", or None where there is none."""
    names = (f"meta_data/{half}.txt", f"meta_data/{half}.txt.zip", f"{half}.txt", f"{half}.txt.zip")
    return next((data_path / name for name in names if (data_path / name).is_file()), None)


def open_list(
    path: Path, data_path: Path, half: str, *, class_names: tuple[str, ...] | None
) -> FileSource:
    """Opens the images of a list.

    Args:
        path: The list.
        data_path: The paths in it are relative to DATA_PATH/HALF or to DATA_PATH.
        half: "train" or "val".
        class_names: The name of each class; None numbers them up to the highest label.

    Raises:
        ValueError: A line is no path and label, a label is out of range, or no file is there.
    """
    paths, labels = read_list(path, num_classes=None if class_names is None else len(class_names))
    roots = (data_path / half, data_path)
    root = next(
        (root for root in roots if any((root / p).is_file() for p in paths[:NUM_TRIED])), None
    )
    if root is None:
        raise ValueError(
            f"open_list: expected the files of {path} in {roots[0]} or {roots[1]}, got none of the "
            f"first {min(NUM_TRIED, len(paths))}, such as {paths[0]}"
        )
    return FileSource(root, paths, labels, class_names or number_names(labels, half, where=path))


def number_names(labels: np.ndarray, half: str, *, where: Path) -> tuple[str, ...]:
    """Returns "0", "1", ... as names of classes up to the highest label.

    Args:
        labels: (I,) The class of each image.
        half: "train" or "val"; in the training images each class has to be.
        where: The list or archive, or the first of many.

    Raises:
        ValueError: A class has no training image: its label may be a slip of the pen, which makes
            a head of a million classes.
    """
    highest = int(labels.max())
    used = np.unique(labels[labels >= 0])
    if half == "train" and len(used) <= highest:
        missing = int(np.flatnonzero(used != np.arange(len(used)))[0])
        raise ValueError(
            f"open_storage: expected images of each class from 0 to {highest}, the highest label "
            f"of {where}, got none of {highest + 1 - len(used):,} of them, such as {missing} "
            "(name the classes in classes.txt if this is as it should be)"
        )
    return tuple(str(label) for label in range(highest + 1))


def read_list(path: Path, *, num_classes: int | None = None) -> tuple[list[str], np.ndarray]:
    """Reads a list.

    Args:
        path: A text file, or a zip archive of one. The label is what follows the last space or
            tab of a line, so a path may hold spaces.
        num_classes: Labels are below it, if it is known.

    Returns:
        Paths, and labels (I,).

    Raises:
        ValueError: It has no line, or a line is no path and label, or a label is out of range.
    """
    paths: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.rsplit(maxsplit=1)
        if len(parts) < 2 or not parts[1].lstrip("-").isdecimal():
            raise ValueError(
                f"read_list: expected a path and a whole number in {path}, line {number}, "
                f"got {line!r}"
            )
        label = int(parts[1])
        if label < 0 or (num_classes is not None and label >= num_classes):
            rule = "label >= 0" if num_classes is None else f"0 <= label < {num_classes}"
            raise ValueError(f"read_list: expected {rule} in {path}, line {number}, got {label}")
        paths.append(parts[0].strip())
        labels.append(label)
    if not paths:
        raise ValueError(f"read_list: expected lines of a path and a label in {path}, got none")
    return paths, np.asarray(labels, dtype=np.int64)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [name for name in archive.namelist() if name.endswith(".txt")]
                if len(members) != 1:
                    raise ValueError(
                        f"read_list: expected one .txt file in {path}, got {len(members)}"
                    )
                content = archive.read(members[0])
    except zipfile.BadZipFile as error:
        raise ValueError(f"read_list: expected a whole zip archive, got {path} ({error})") from None
    return content.decode("utf-8-sig", errors="surrogateescape")
