"""CIFAR-10 and CIFAR-100: colour images of 32x32 pixels, from the official files.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. Both the Python
and the binary version are read; the Python one holds pickles, of which nothing is ever executed.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from yacs.config import CfgNode

from classification.data.source import ArraySource, ImageSets
from classification.data.storage import check_official_path

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE


class Layout(NamedTuple):
    """Where one version of one data set keeps what.

    Args:
        folder: The folder that the official archive unpacks to.
        train: Files of training images.
        test: Files of test images.
        names: The file of the class names.
        labels: Python version: the key of the labels.
        class_names: Python version: the key of the names.
        label_bytes: Binary version: bytes before each image, the last one the label; else 0.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    labels: bytes = b""
    class_names: bytes = b""
    label_bytes: int = 0


class Images(NamedTuple):
    """One half of a data set.

    Args:
        pixels: (num_images, 32, 32, 3), uint8 RGB.
        labels: (num_images,), int64.
        class_names: The name of each class.
    """

    pixels: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


LAYOUTS = {
    10: (
        Layout(
            "cifar-10-batches-py",
            tuple(f"data_batch_{number}" for number in range(1, 6)),
            ("test_batch",),
            "batches.meta",
            labels=b"labels",
            class_names=b"label_names",
        ),
        Layout(
            "cifar-10-batches-bin",
            tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            ("test_batch.bin",),
            "batches.meta.txt",
            label_bytes=1,
        ),
    ),
    100: (
        Layout(
            "cifar-100-python",
            ("train",),
            ("test",),
            "meta",
            labels=b"fine_labels",
            class_names=b"fine_label_names",
        ),
        Layout(
            "cifar-100-binary",
            ("train.bin",),
            ("test.bin",),
            "fine_label_names.txt",
            label_bytes=2,  # the coarse label comes first
        ),
    ),
}


def build_cifar10(config: CfgNode) -> ImageSets:
    """Builds both halves of CIFAR-10.

    Raises:
        ValueError: A file is missing, damaged, or not what the official ones are.
    """
    return _build(config, 10)


def build_cifar100(config: CfgNode) -> ImageSets:
    """Builds both halves of CIFAR-100.

    Raises:
        ValueError: A file is missing, damaged, or not what the official ones are.
    """
    return _build(config, 100)


def _build(config: CfgNode, num_classes: int) -> ImageSets:
    root = check_official_path(config)
    train, test = (read_cifar(root, num_classes, train=train) for train in (True, False))
    return ImageSets(
        train=ArraySource(
            train.pixels, train.labels, train.class_names, name=f"cifar{num_classes}/train"
        ),
        test=ArraySource(
            test.pixels, test.labels, test.class_names, name=f"cifar{num_classes}/test"
        ),
        class_names=train.class_names,
    )


def read_cifar(root: Path, num_classes: int, *, train: bool) -> Images:
    """Reads the training or the test half.

    Args:
        root: The folder that the official archive unpacks to, or the one that it lies in.
        num_classes: 10 or 100.
        train: Which half.

    Raises:
        ValueError: A file is missing, damaged, or not what the official ones are.
    """
    layout, folder = _find_layout(root, num_classes)
    paths = [folder / name for name in (layout.train if train else layout.test)]
    read: Callable[[Path, Layout], tuple[np.ndarray, np.ndarray]] = (
        _read_binary if layout.label_bytes else _read_python
    )
    halves = [read(path, layout) for path in paths]
    pixels = np.concatenate([half[0] for half in halves])
    labels = np.concatenate([half[1] for half in halves])
    names = _read_names(folder / layout.names, layout)
    if len(names) != num_classes:
        raise ValueError(
            f"read_cifar: expected {num_classes} class names in {folder / layout.names}, "
            f"got {len(names)}"
        )
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= num_classes:
        got = f"{labels.min()} to {labels.max()}" if len(labels) else "no image"
        raise ValueError(
            f"read_cifar: expected labels 0 to {num_classes - 1} in {folder}, got {got}"
        )
    # (num_images, 3072), one plane a colour -> (num_images, 32, 32, 3)
    pixels = np.ascontiguousarray(pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    return Images(pixels, labels, names)


def _find_layout(root: Path, num_classes: int) -> tuple[Layout, Path]:
    layouts = LAYOUTS[num_classes]
    for layout in layouts:
        for folder in (root / layout.folder, root):
            missing = [
                name
                for name in (*layout.train, *layout.test, layout.names)
                if not (folder / name).is_file()
            ]
            if not missing:
                return layout, folder
            if folder.name == layout.folder and folder.is_dir():
                raise ValueError(
                    f"read_cifar: expected the files of CIFAR-{num_classes} in {folder}, "
                    f"got none called {missing[0]}"
                )
    folders = " or ".join(layout.folder for layout in layouts)
    raise ValueError(
        f"read_cifar: expected the folder {folders} of CIFAR-{num_classes} in DATA.DATA_PATH, "
        f"got {str(root)!r}"
    )


def _read_binary(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    content = np.fromfile(path, dtype=np.uint8)
    record = layout.label_bytes + IMAGE_BYTES
    if len(content) % record:
        raise ValueError(
            f"read_cifar: expected a whole number of {record} bytes in {path}, got {len(content)}"
        )
    records = content.reshape(-1, record)
    return records[:, layout.label_bytes :], records[:, layout.label_bytes - 1].astype(np.int64)


def _read_python(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    content = _read_pickle(path)
    pixels, labels = content.get(b"data"), content.get(layout.labels)
    pixels = pixels.array if isinstance(pixels, _Array) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != IMAGE_BYTES:
        raise ValueError(
            f"read_cifar: expected b'data' in {path} an array of rows of {IMAGE_BYTES} bytes, "
            f"got {None if pixels is None else pixels.shape}"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(
            f"read_cifar: expected {layout.labels!r} in {path} a list of integers, "
            f"got {type(labels).__name__}"
        )
    if len(labels) != len(pixels):
        raise ValueError(
            f"read_cifar: expected as many labels as images in {path}, "
            f"got {len(labels)} and {len(pixels)}"
        )
    return pixels, np.array(labels, dtype=np.int64)


def _read_names(path: Path, layout: Layout) -> tuple[str, ...]:
    if layout.label_bytes:
        names: Any = path.read_bytes().split()
    else:
        names = _read_pickle(path).get(layout.class_names)
    try:
        return tuple(
            name.decode("ascii") if isinstance(name, bytes) else str(name) for name in names
        )
    except (TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"read_cifar: expected class names in {path}, got {names!r}") from error


class _DType:
    """What stands for numpy's dtype in a pickle; only bytes are admitted."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"expected an array of bytes, got one of {code!r}")

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment, which bytes have not


class _Array:
    """What stands for numpy's array in a pickle: numpy itself reads nothing of the file."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("expected an array of bytes")
        array = np.frombuffer(data, np.uint8)
        self.array = array.reshape(shape, order="F" if is_fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Reads the official files and refuses every name that they do not hold.

    A pickle may name any function to call. Here a name leads to one of the stand-ins above or to an
    error, so nothing but them ever runs.
    """

    ADMITTED = {
        ("numpy", "dtype"): _DType,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,  # files written by NumPy 2
        ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),  # bytes from Python 3
    }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for a name.

        Raises:
            UnpicklingError: The name is none that the official files hold.
        """
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"refused to call {module}.{name}")
        return self.ADMITTED[module, name]


def _read_pickle(path: Path) -> dict[bytes, Any]:
    """Reads a dict with byte strings as keys, as Python 2 wrote them.

    Raises:
        ValueError: The file holds something else.
    """
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"read_cifar: expected an official file of CIFAR, got {path} "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"read_cifar: expected a dict in {path}, got {type(content).__name__}")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}
