"""ImageNet-1k and ImageNet-22k, in class folders, lists, zip archives or shards.

The class folders are called by WordNet ids (train/n01440764/...), whose order numbers the classes,
as in the released weights. tools/prepare_imagenet.py makes the folders of ImageNet-1k.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from classification.data.class_folders import name_some
from classification.data.class_lists import Subset, class_words, wordnet_ids
from classification.data.source import FileSource, ImageSets, Source
from classification.data.storage import CLASSES_FILE, check_data_path, open_half, open_storage
from internimage.imagenet22k import imagenet_1k_rows

LABEL_FILES_22K = ("meta_data/22k_label.txt", "22k_label.txt")


def build_imagenet(config: CfgNode) -> ImageSets:
    """Builds both halves of ImageNet-1k.

    Raises:
        ValueError: Nothing is there, or there are other than the 1,000 classes.
    """
    ids = wordnet_ids("imagenet-1k")
    sets = open_storage(config, num_classes=len(ids))
    _check_names(sets.class_names, "imagenet-1k", config)
    return dataclasses.replace(sets, class_names=class_words("imagenet-1k"))


def build_imagenet22k(config: CfgNode) -> ImageSets:
    """Builds ImageNet-22k, the Fall 2011 release of 21,841 classes.

    It has no official test half: val may hold images of all classes, of some, or the validation
    images of ImageNet-1k, whose classes are rows of a 22k head.

    Raises:
        ValueError: Nothing is there, or there are other classes.
    """
    root = check_data_path(config)
    ids = wordnet_ids("imagenet-22k")
    label_file = next((root / name for name in LABEL_FILES_22K if (root / name).is_file()), None)
    numbers = None if (root / CLASSES_FILE).is_file() else tuple(map(str, range(len(ids))))
    if label_file is not None and config.DATA.STORAGE in ("auto", "list"):
        train: Source = _open_label_file(label_file, root)
    else:
        train = open_half(config, "train", class_names=numbers)
        _check_names(train.class_names, "imagenet-22k", config)
    test = open_half(config, "val", class_names=numbers)
    if test.class_names != numbers:
        test.labels = _rows_22k(test.class_names, root)[test.labels]
    words = class_words("imagenet-22k")
    train.class_names = test.class_names = words
    return ImageSets(train, test, words)


def _check_names(names: tuple[str, ...], subset: Subset, config: CfgNode) -> None:
    """Checks that folders have the names of the classes; numbers need no check."""
    ids = wordnet_ids(subset)
    if names == ids or all(name.isdecimal() for name in names):
        return
    strange = sorted(set(names) - set(ids)) or sorted(set(ids) - set(names))
    raise ValueError(
        f"build_{config.DATA.DATASET}: expected the {len(ids)} WordNet ids, {ids[0]} to {ids[-1]}, "
        f"as classes in {config.DATA.DATA_PATH}, got {len(names)} classes, such as "
        f"{name_some(strange)} (any folder of classes: --dataset folder)"
    )


def _rows_22k(names: tuple[str, ...], root: Path) -> np.ndarray:
    """Returns the row of a 22k head that each class of the test images has."""
    rows = {wordnet_id: row for row, wordnet_id in enumerate(wordnet_ids("imagenet-22k"))}
    # One class of ImageNet-1k is not in 22k and borrows a row: internimage/imagenet22k.py.
    rows = dict(zip(wordnet_ids("imagenet-1k"), imagenet_1k_rows(), strict=True)) | rows
    strange = [name for name in names if name not in rows]
    if strange:
        raise ValueError(
            "build_imagenet22k: expected WordNet ids of ImageNet-22k as classes in "
            f"{root / 'val'}, got {name_some(strange)}"
        )
    return np.array([rows[name] for name in names], dtype=np.int64)


def _open_label_file(path: Path, root: Path) -> FileSource:
    """Opens the images of 22k_label.txt: lines of a path and a WordNet id or a number.

    The file has 14 million lines: it is read twice, so that no list of texts is in memory.
    """
    ids = wordnet_ids("imagenet-22k")
    rows = {wordnet_id: row for row, wordnet_id in enumerate(ids)}
    rows |= {str(row): row for row in range(len(ids))}
    labels = np.fromiter((rows[label] for _, label in _read_pairs(path, rows)), dtype=np.int64)
    if not len(labels):
        raise ValueError(
            f"build_imagenet22k: expected lines of a path and a class in {path}, got none"
        )
    first = next(_read_pairs(path, rows))[0]
    folders = (root / "train", root)
    folder = next((folder for folder in folders if (folder / first).is_file()), None)
    if folder is None:
        raise ValueError(
            f"build_imagenet22k: expected the files of {path} in {folders[0]} or {folders[1]}, "
            f"got no {first} there"
        )
    return FileSource(folder, (name for name, _ in _read_pairs(path, rows)), labels, ids)


def _read_pairs(path: Path, rows: dict[str, int]) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            parts = line.rsplit(maxsplit=1)
            if not parts:
                continue
            if len(parts) != 2 or parts[1] not in rows:
                raise ValueError(
                    f"build_imagenet22k: expected a path and a class (a WordNet id or 0 to "
                    f"{len(rows) // 2 - 1}) in {path}, line {number}, got {line.strip()!r}"
                )
            yield parts[0], parts[1]
