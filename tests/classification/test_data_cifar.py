"""CIFAR: both versions of the official files, made small, and files that would do harm."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data.cifar import build_cifar10, build_cifar100, read_cifar

NAMES_10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
NAMES_100 = [f"thing_{index}" for index in range(100)]


def python2(value: Any) -> bytes:
    """The opcodes that Python 2's pickle, protocol 2, has for a value, as in the official files."""
    if isinstance(value, str):  # Python 2's str
        data = value.encode("latin-1")
        return b"T" + struct.pack("<i", len(data)) + data
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(value[key]) for key in value) + b"u"
    assert isinstance(value, np.ndarray)
    dtype = b"cnumpy\ndtype\n" + python2("u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + python2("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(map(python2, value.shape)) + b"t"
    state = b"(K\x01" + shape + dtype + b"\x89" + python2(value.tobytes().decode("latin-1")) + b"t"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + b"K\x00\x85" + python2("b")
    return start + b"\x87R" + state + b"b"


def as_python2(value: Any) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def make_images(count: int, num_classes: int, seed: int) -> tuple[np.ndarray, list[int]]:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    return pixels, generator.integers(0, num_classes, count).tolist()


def write_python(root: Path, num_classes: int, dump: Any = as_python2) -> None:
    if num_classes == 10:
        folder, meta = root / "cifar-10-batches-py", "batches.meta"
        names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
        labels_key, names_key, class_names = "labels", "label_names", NAMES_10
    else:
        folder, meta, names = root / "cifar-100-python", "meta", ["train", "test"]
        labels_key, names_key, class_names = "fine_labels", "fine_label_names", NAMES_100
    folder.mkdir()
    for seed, name in enumerate(names):
        pixels, labels = make_images(4, num_classes, seed)
        content = {"batch_label": name, "coarse_labels": [0] * 4, labels_key: labels}
        (folder / name).write_bytes(dump({**content, "data": pixels}))
    (folder / meta).write_bytes(dump({"num_vis": 3072, names_key: class_names}))


def write_binary(root: Path, num_classes: int) -> None:
    if num_classes == 10:
        folder, meta, class_names = root / "cifar-10-batches-bin", "batches.meta.txt", NAMES_10
        names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    else:
        folder, meta, class_names = root / "cifar-100-binary", "fine_label_names.txt", NAMES_100
        names = ["train.bin", "test.bin"]
    folder.mkdir()
    for seed, name in enumerate(names):
        pixels, labels = make_images(4, num_classes, seed)
        coarse = b"" if num_classes == 10 else b"\x07"
        rows = zip(labels, pixels, strict=True)
        content = b"".join(coarse + bytes([label]) + row.tobytes() for label, row in rows)
        (folder / name).write_bytes(content)
    (folder / meta).write_text("\n".join(class_names) + "\n\n")


def settings(root: Path) -> CfgNode:
    config = get_default_config()
    config.DATA.DATA_PATH = str(root)
    return config


FORMS = {
    "python 2": write_python,
    "python 3": lambda root, n: write_python(
        root, n, lambda value: pickle.dumps(value, protocol=4)
    ),
    "protocol 2": lambda root, n: write_python(root, n, lambda v: pickle.dumps(v, protocol=2)),
    "binary": write_binary,
}


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_hold_the_same_images(form: str, num_classes: int, tmp_path: Path):
    FORMS[form](tmp_path, num_classes)
    sets = (build_cifar10 if num_classes == 10 else build_cifar100)(settings(tmp_path))
    assert sets.class_names == tuple(NAMES_10 if num_classes == 10 else NAMES_100)
    seeds = {"train": range(5), "test": [5]} if num_classes == 10 else {"train": [0], "test": [1]}
    for half, source in (("train", sets.train), ("test", sets.test)):
        made = [make_images(4, num_classes, seed) for seed in seeds[half]]
        assert source.labels.tolist() == [label for _, labels in made for label in labels]
        pixels = np.concatenate([rows for rows, _ in made])
        for index, row in enumerate(pixels):
            image = source.read(index)
            assert image.shape == (32, 32, 3) and image.dtype == np.uint8
            for y, x, colour in ((0, 0, 0), (0, 31, 1), (31, 0, 2), (17, 5, 1)):
                assert image[y, x, colour] == row[colour * 1024 + y * 32 + x]
        assert source.name(3) == f"cifar{num_classes}/{half}[3]"


def test_the_folder_itself_may_be_the_data_path(tmp_path: Path):
    write_python(tmp_path, 10)
    inside = read_cifar(tmp_path / "cifar-10-batches-py", 10, train=True)
    assert np.array_equal(inside.pixels, read_cifar(tmp_path, 10, train=True).pixels)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": Harmful()}),
        pickle.dumps({b"data": Harmful()}, protocol=0),
        pickle.dumps(Harmful(), protocol=2),
        b"\x80\x02cbuiltins\neval\nU\x08print(1)\x85R.",
        b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        b"(S'touch harmed'\nios\nsystem\n.",
    ],
)
def test_a_pickle_runs_no_code(content: bytes, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_python(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an official file .*data_batch_3 .*refused"):
        read_cifar(tmp_path, 10, train=True)
    assert not (tmp_path / "harmed").exists()


def _damage(pixels: Any, labels: Any) -> bytes:
    return pickle.dumps({b"data": pixels, b"labels": labels})


ROWS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (as_python2({"data": ROWS, "labels": [0, 1]})[:500], "expected an official file of CIFAR"),
        (b"", "expected an official file of CIFAR"),
        (pickle.dumps([1]), "expected a dict in .*test_batch, got list"),
        (_damage(ROWS, [0]), "expected as many labels as images .*, got 1 and 2"),
        (_damage(ROWS, [0, 10]), "expected labels 0 to 9 in .*, got 0 to 10"),
        (_damage(ROWS, [0, -1]), "expected labels 0 to 9 in .*, got -1 to 0"),
        (_damage(ROWS, [0, "1"]), "a list of integers, got list"),
        (_damage(ROWS[:, 1:], [0, 1]), r"rows of 3072 bytes, got \(2, 3071\)"),
        (_damage(ROWS.astype(np.float32), [0, 1]), "expected an array of bytes, got one of 'f4'"),
        (_damage(np.array([object()]), [0]), "expected an official file of CIFAR"),
        (_damage([[0]], [0]), "expected b'data' in .*, got None"),
        (_damage(ROWS[:0], []), "got no image"),
    ],
)
def test_a_damaged_file_is_an_error(content: bytes, message: str, tmp_path: Path):
    write_python(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_cifar(tmp_path, 10, train=False)


def test_a_binary_file_that_is_cut_off_is_an_error(tmp_path: Path):
    write_binary(tmp_path, 100)
    path = tmp_path / "cifar-100-binary" / "test.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="a whole number of 3074 bytes in .*test.bin, got 12295"):
        read_cifar(tmp_path, 100, train=False)


def test_missing_files_and_wrong_names_are_errors(tmp_path: Path):
    with pytest.raises(ValueError, match="the folder cifar-10-batches-py or cifar-10-batches-bin"):
        read_cifar(tmp_path, 10, train=True)
    write_python(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(ValueError, match="in .*cifar-10-batches-py, got none called data_batch_4"):
        read_cifar(tmp_path, 10, train=False)
    write_python(tmp_path, 100)
    meta = {"fine_label_names": NAMES_100[:99]}
    (tmp_path / "cifar-100-python" / "meta").write_bytes(as_python2(meta))
    with pytest.raises(ValueError, match="expected 100 class names in .*meta, got 99"):
        read_cifar(tmp_path, 100, train=False)
