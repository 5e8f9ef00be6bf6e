"""Places365 and Places205: photographs of 365 and of 205 kinds of places.

Places365-Standard, as the official archives unpack:

    places365_train_standard.txt  places365_val.txt  categories_places365.txt
    (or these three in filelist_places365-standard/)
    data_256/a/airfield/...    or data_large/    the training images
    val_256/...                or val_large/     the validation images

Places205:

    trainvalsplit_places205/train_places205.csv  val_places205.csv
    data/vision/torralba/deeplearning/images256/a/abbey/...    or images256/

Either may be in class folders, lists, zip archives or shards instead.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from classification.data.file_list import read_list
from classification.data.source import FileSource, ImageSets
from classification.data.storage import check_data_path, open_storage

LISTS_365 = ("", "filelist_places365-standard")
TRAIN_LIST_365 = "places365_train_standard.txt"
IMAGES_365 = {"train": ("data_256", "data_large"), "val": ("val_256", "val_large")}
LISTS_205 = ("trainvalsplit_places205", "")
TRAIN_LIST_205 = "train_places205.csv"
IMAGES_205 = ("data/vision/torralba/deeplearning/images256", "images256")


def build_places365(config: CfgNode) -> ImageSets:
    """Builds both halves of Places365-Standard.

    Raises:
        ValueError: Nothing is there, or it is not as it has to be.
    """
    return _build(config, 365, LISTS_365, TRAIN_LIST_365, _open_365)


def build_places205(config: CfgNode) -> ImageSets:
    """Builds both halves of Places205.

    Raises:
        ValueError: Nothing is there, or it is not as it has to be.
    """
    return _build(config, 205, LISTS_205, TRAIN_LIST_205, _open_205)


def _build(
    config: CfgNode,
    num_classes: int,
    folders: tuple[str, ...],
    train_list: str,
    open_official: Callable[[Path, Path], ImageSets],
) -> ImageSets:
    """Opens the official files where their list is there, or else whatever else is."""
    root = check_data_path(config)
    if config.DATA.STORAGE in ("auto", "list") and not config.DATA.ZIP_MODE:
        lists = next(
            (root / name for name in folders if (root / name / train_list).is_file()), None
        )
        if lists is not None:
            return open_official(root, lists)
    try:
        return open_storage(config, num_classes=num_classes)
    except ValueError as error:
        where = " or ".join(str(root / name / train_list) for name in folders)
        raise ValueError(
            f"{error}; the official list of Places{num_classes} is not {where}"
        ) from error


def _open_365(root: Path, lists: Path) -> ImageSets:
    names_path = lists / "categories_places365.txt"
    words, numbers = read_list(_existing(names_path), num_classes=365)
    if sorted(numbers) != list(range(365)):
        raise ValueError(
            f"build_places365: expected the classes 0 to 364 once each in {names_path}, "
            f"got {len(numbers)} lines"
        )
    # "/a/airfield" -> "airfield"
    names = tuple(words[line].removeprefix("/")[2:] for line in np.argsort(numbers))
    halves = {}
    for half, name in (("train", TRAIN_LIST_365), ("val", "places365_val.txt")):
        paths, labels = read_list(_existing(lists / name), num_classes=365)
        folder = _image_folder(root, IMAGES_365[half])
        halves[half] = FileSource(folder, [path.lstrip("/") for path in paths], labels, names)
    return ImageSets(halves["train"], halves["val"], names)


def _open_205(root: Path, lists: Path) -> ImageSets:
    folder = _image_folder(root, IMAGES_205)
    train_paths, train_labels = _read_csv(lists / TRAIN_LIST_205)
    test_paths, test_labels = _read_csv(_existing(lists / "val_places205.csv"))
    first = dict(zip(reversed(train_labels), reversed(train_paths), strict=True))
    if sorted(first) != list(range(205)):
        raise ValueError(
            f"build_places205: expected images of all 205 classes in {lists / TRAIN_LIST_205}, "
            f"got {len(first)} classes"
        )
    # "a/abbey/x.jpg" -> "abbey", "a/apse/indoor/x.jpg" -> "apse/indoor"
    names = tuple("/".join(first[label].split("/")[1:-1]) for label in range(205))
    return ImageSets(
        FileSource(folder, train_paths, train_labels, names),
        FileSource(folder, test_paths, test_labels, names),
        names,
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"build_places: expected the official file {path}, got none")
    return path


def _image_folder(root: Path, names: tuple[str, ...]) -> Path:
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        raise ValueError(
            f"build_places: expected the images in {' or '.join(names)} of {root}, "
            "got no such folder"
        )
    return folder


def _read_csv(path: Path) -> tuple[list[str], list[int]]:
    """Reads lines of a path and a label; a space divides them, or a comma in some copies."""
    paths, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = re.fullmatch(r"/?(\S.*?)[\s,]+(\d+)\s*", line)
        if match is None or int(match[2]) >= 205:
            raise ValueError(
                f"build_places205: expected a path and a class from 0 to 204 in {path}, "
                f"line {number}, got {line[:80]!r}"
            )
        paths.append(match[1])
        labels.append(int(match[2]))
    return paths, labels
