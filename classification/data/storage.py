"""How images are stored: looks at DATA.DATA_PATH and opens what is there.

folder   train/CLASS/.../x.jpg          val/CLASS/.../x.jpg
list     meta_data/train.txt            meta_data/val.txt, or class folders
zip      train.zip                      val.zip
shards   *train-*.tar                   *val-*.tar
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from yacs.config import CfgNode

from classification.data.class_folders import name_some, open_class_folders
from classification.data.file_list import find_list, open_list
from classification.data.shards import find_shards, open_shards
from classification.data.source import ImageSets, Source
from classification.data.zip_archive import open_zip

CLASSES_FILE = "classes.txt"
"""Names of classes, one a line, for lists and shards, which number them."""


class Half(NamedTuple):
    """One half of a data set on a disk.

    Args:
        data_path: The folder of the data set.
        name: "train" or "val".
        class_names: What lists and shards call their numbers, where it is known.
    """

    data_path: Path
    name: str
    class_names: tuple[str, ...] | None


def open_storage(config: CfgNode, *, num_classes: int | None = None) -> ImageSets:
    """Opens both halves of a data set at DATA.DATA_PATH.

    Args:
        config: The settings; DATA.DATA_PATH, DATA.STORAGE and DATA.ZIP_MODE are read.
        num_classes: How many classes there must be, where the data set decides that.

    Returns:
        The halves, as photos. The names of the classes are those of the folders, or else the
        lines of ``classes.txt`` in DATA_PATH, or else numbers. With EVAL_MODE or THROUGHPUT_MODE
        the test images stand in for the training images, which need not be there, wherever the
        classes are known without them.

    Raises:
        ValueError: Nothing is there, or it is not as it has to be.
    """
    data_path = check_data_path(config)
    storage = _storage(config)
    names = _read_class_names(data_path)
    numbers = None if num_classes is None else tuple(map(str, range(num_classes)))
    if config.EVAL_MODE or config.THROUGHPUT_MODE:
        test, found = _open_first(Half(data_path, "val", names or numbers), storage)
        if names or numbers or not STORAGES[found].numbers_classes(data_path, "val"):
            _check_count(test, num_classes, config)
            return ImageSets(test, test, test.class_names)
    train, found = _open_first(Half(data_path, "train", names or numbers), storage)
    _check_count(train, num_classes, config)
    test, _ = _open_first(Half(data_path, "val", train.class_names), storage)
    numbered = names is None and STORAGES[found].numbers_classes(data_path, "train")
    _check_same_classes(train, test, data_path, numbered=numbered)
    return ImageSets(train, test, test.class_names if numbered else train.class_names)


def open_half(
    config: CfgNode, half: Literal["train", "val"], *, class_names: tuple[str, ...] | None = None
) -> Source:
    """Opens one half of a data set alone, with whatever classes it has.

    Args:
        config: The settings, as for ``open_storage``.
        half: Which one.
        class_names: What lists and shards call their numbers; None takes ``classes.txt``.

    Raises:
        ValueError: Nothing is there, or it is not as it has to be.
    """
    data_path = check_data_path(config)
    names = class_names or _read_class_names(data_path)
    return _open_first(Half(data_path, half, names), _storage(config))[0]


def check_data_path(config: CfgNode) -> Path:
    """Returns DATA.DATA_PATH.

    Raises:
        ValueError: It is empty or no folder.
    """
    text = config.DATA.DATA_PATH
    if not text:
        raise ValueError(
            f"build_data: expected DATA.DATA_PATH (--data-path) beside DATA.DATASET "
            f"{config.DATA.DATASET}, got none"
        )
    path = Path(text).expanduser()
    if not path.is_dir():
        what = "a file" if path.exists() else "nothing there"
        raise ValueError(f"build_data: expected DATA.DATA_PATH a folder, got {text}: {what}")
    return path


def check_official_path(config: CfgNode) -> Path:
    """Returns DATA.DATA_PATH of a data set whose own files are all that can be read.

    Raises:
        ValueError: It is empty or no folder, or a storage is demanded.
    """
    path = check_data_path(config)
    if config.DATA.STORAGE != "auto" or config.DATA.ZIP_MODE:
        raise ValueError(
            f"build_data: expected DATA.STORAGE auto and DATA.ZIP_MODE False beside DATA.DATASET "
            f"{config.DATA.DATASET}, got {config.DATA.STORAGE} and {config.DATA.ZIP_MODE}"
        )
    return path


def _storage(config: CfgNode) -> str:
    return "zip" if config.DATA.ZIP_MODE else config.DATA.STORAGE


def _read_class_names(data_path: Path) -> tuple[str, ...] | None:
    path = data_path / CLASSES_FILE
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) < len(names):
        got = "none" if not names else "one twice"
        raise ValueError(
            f"open_storage: expected different names, one a line, in {path}, got {got}"
        )
    return names


def _open_first(half: Half, storage: str) -> tuple[Source, str]:
    """Opens the first storage that is there; returns its name as well."""
    allowed = {"auto": list(STORAGES), "list": ["list", "folder"]}.get(storage, [storage])
    if storage == "list" and half.name == "train":
        allowed = ["list"]  # only the test images may be in class folders then
    for name in allowed:
        source = STORAGES[name].open(half)
        if source is not None:
            return source, name
    looked = "; ".join(STORAGES[name].looks_for.replace("HALF", half.name) for name in allowed)
    there = sorted(path.name for path in half.data_path.iterdir())
    raise ValueError(
        f"open_storage: expected {looked} in {half.data_path} (DATA.STORAGE {storage}), "
        f"got {name_some(there) or 'an empty folder'}"
    )


def _check_count(source: Source, num_classes: int | None, config: CfgNode) -> None:
    if num_classes is not None and len(source.class_names) != num_classes:
        raise ValueError(
            f"open_storage: expected {num_classes} classes of DATA.DATASET {config.DATA.DATASET} "
            f"in {config.DATA.DATA_PATH}, got {len(source.class_names)}"
        )


def _check_same_classes(train: Source, test: Source, data_path: Path, *, numbered: bool) -> None:
    """Checks that label 3 is the same class in both halves, as far as names tell.

    Where the training images have numbers for classes and the test images folders, the folders in
    their order have these numbers, as ImageNet's lists have it.
    """
    known, got = set(train.class_names), set(test.class_names)
    if train.class_names == test.class_names:
        return
    if numbered and len(known) == len(got) and known != got:
        return
    extra, missing = sorted(got - known), sorted(known - got)
    raise ValueError(
        f"open_storage: expected the {len(known)} classes of the training images in val of "
        f"{data_path}, got {len(got)}"
        + (f"; not known: {name_some(extra)}" if extra else "")
        + (f"; missing: {name_some(missing)}" if missing else "")
        + ("; the same in another order" if known == got else "")
    )


class Storage(NamedTuple):
    """One way to store images.

    Args:
        looks_for: What ``open`` looks for, in words; HALF stands for train or val.
        open: Opens a half; None where nothing of the kind is there.
        numbers_classes: Whether images at DATA_PATH, of "train" or "val", come with numbers for
            classes and no names.
    """

    looks_for: str
    open: Callable[[Half], Source | None]
    numbers_classes: Callable[[Path, str], bool]


def _open_list(half: Half) -> Source | None:
    path = find_list(half.data_path, half.name)
    if path is None:
        return None
    return open_list(path, half.data_path, half.name, class_names=half.class_names)


def _open_folder(half: Half) -> Source | None:
    folder = half.data_path / half.name
    return open_class_folders(folder) if folder.is_dir() else None


def _open_zip(half: Half) -> Source | None:
    path = half.data_path / f"{half.name}.zip"
    return open_zip(path, half.name, class_names=half.class_names) if path.is_file() else None


def _open_shards(half: Half) -> Source | None:
    paths = find_shards(half.data_path, half.name)
    return open_shards(paths, half.name, class_names=half.class_names) if paths else None


# In the order in which "auto" looks: a list says more than the folders that its files lie in.
STORAGES = {
    "list": Storage(
        "meta_data/HALF.txt or HALF.txt, also .zip", _open_list, lambda path, half: True
    ),
    "folder": Storage("a folder HALF of class folders", _open_folder, lambda path, half: False),
    "zip": Storage("HALF.zip", _open_zip, lambda path, half: (path / f"{half}_map.txt").is_file()),
    "shards": Storage("*HALF-*.tar", _open_shards, lambda path, half: True),
}
