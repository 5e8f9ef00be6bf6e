"""Writes the images and masks of NYU Depth v2, 40 classes, from the files that were published.

python tools/nyu_to_masks.py nyu_depth_v2_labeled.mat splits.mat classMapping40.mat --out DIR

``nyu_depth_v2_labeled.mat`` (2.8 GB) has 1449 images with labels of 894 classes, ``splits.mat``
says which are to be trained on, and ``classMapping40.mat`` which of 40 classes each of the 894 is.
A mask has 1 to 40, and 0 where there is no label. Reading needs ``pip install h5py``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.coco_files import whole_folder
from tools.command_line import progress, run_tool

NAME = "nyu_to_masks"
NUM_CLASSES = 40
IMAGES, MASKS = "image", "label40"
SPLITS = {"train.txt": "trainNdxs", "test.txt": "testNdxs"}


def read_class_table(path: Path) -> np.ndarray:
    """Returns the class, 1 to 40, of each label, (895,), uint8; label 0 is none.

    Raises:
        ValueError: The file is not the one of this name.
        OSError: It cannot be read.
    """
    classes = _read_variable(path, "mapClass").ravel()
    if not classes.size or classes.min() < 1 or classes.max() > NUM_CLASSES:
        raise ValueError(f"{NAME}: expected mapClass in {path} = classes 1 to {NUM_CLASSES}")
    return np.concatenate([[0], classes]).astype(np.uint8)


def read_splits(path: Path, count: int) -> dict[str, np.ndarray]:
    """Returns the numbers of the images of ``train.txt`` and ``test.txt``, counted from 1.

    Raises:
        ValueError: The file is not the one of this name, or of another number of images.
        OSError: It cannot be read.
    """
    splits = {name: _read_variable(path, key).ravel() for name, key in SPLITS.items()}
    numbers = np.sort(np.concatenate(list(splits.values())))
    if not np.array_equal(numbers, np.arange(1, count + 1)):
        raise ValueError(
            f"{NAME}: expected each of the {count} images in one list of {path}, got "
            f"{len(numbers)} numbers"
        )
    return splits


def _read_variable(path: Path, key: str) -> np.ndarray:
    """Returns a variable of a MATLAB file of version 5."""
    import scipy.io  # it takes a second, and --help does without
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise ValueError(f"{NAME}: expected a file, got none at {path}")
    try:
        return scipy.io.loadmat(path, variable_names=[key])[key]
    except (LookupError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise ValueError(f"{NAME}: expected {key} in {path}, got {error}") from error


def _open(path: Path) -> Any:
    """Opens a MATLAB file of version 7.3, which is an HDF5 file."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ValueError(f"{NAME}: reading {path} needs h5py: pip install h5py") from error
    if not path.is_file():
        raise ValueError(f"{NAME}: expected a file, got none at {path}")
    return h5py.File(path, "r")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"{NAME}.py", description=__doc__.splitlines()[0])
    parser.add_argument("labeled", type=Path, metavar="nyu_depth_v2_labeled.mat")
    parser.add_argument("splits", type=Path, metavar="splits.mat")
    parser.add_argument("classes", type=Path, metavar="classMapping40.mat")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    table = read_class_table(args.classes)
    content = (IMAGES, MASKS, *SPLITS)
    with (
        _open(args.labeled) as file,
        whole_folder(args.out, tool=NAME, overwrite=args.overwrite, content=content) as folder,
    ):
        if "images" not in file or "labels" not in file:
            raise ValueError(f"{NAME}: expected images and labels in {args.labeled}, got others")
        # (count, 3, W, H) and (count, W, H): MATLAB's order of sides is the reverse.
        images, labels = file["images"], file["labels"]
        splits = read_splits(args.splits, len(images))
        for name in (IMAGES, MASKS):
            (folder / name).mkdir()
        with progress("images", len(images)) as advance:
            for index in range(len(images)):
                stem = f"{index + 1:04}"
                numbers = np.asarray(labels[index]).T
                if numbers.max() >= len(table):
                    raise ValueError(
                        f"{NAME}: expected labels 0 to {len(table) - 1}, got {numbers.max()} in "
                        f"image {index + 1}"
                    )
                pixels = np.ascontiguousarray(np.asarray(images[index]).T)
                Image.fromarray(pixels).save(folder / IMAGES / f"{stem}.png")
                Image.fromarray(table[numbers]).save(folder / MASKS / f"{stem}.png")
                advance(1)
        for name, members in splits.items():
            lines = [f"{number:04}\n" for number in sorted(members)]
            (folder / name).write_text("".join(lines))
    sizes = ", ".join(f"{len(members)} in {name}" for name, members in splits.items())
    print(f"{NAME}: {sum(map(len, splits.values()))} images in {args.out}: {sizes}")


if __name__ == "__main__":
    sys.exit(main())
