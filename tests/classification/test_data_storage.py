"""Every storage gives the same images; every mistake in one is one clear error."""

import copy
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data import build_sets
from classification.data.open_files import MAX_OPEN, OpenFiles
from classification.data.packed import PackedPaths
from tests.classification.image_files import (
    CLASSES,
    STORAGES,
    each_file,
    encode,
    picture,
    write_folders,
    write_list,
    write_shards,
    write_zips,
)


def config_of(path: Path | str, **data: object) -> CfgNode:
    config = get_default_config()
    config.DATA.update({"DATASET": "folder", "DATA_PATH": str(path)} | data)
    return config


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_same_images_and_labels(tmp_path: Path, storage: str):
    expected_root = write_folders(tmp_path / "expected")
    sets = build_sets(config_of(STORAGES[storage](tmp_path / "data")))
    for half, source in (("train", sets.train), ("val", sets.test)):
        expected = list(each_file(expected_root, half))
        assert source.labels.tolist() == [label for _, label, _ in expected]
        # Another process gets a source by forking, or by pickling, which is what deepcopy does.
        for again in (source, copy.deepcopy(source)):
            assert [again.read(i) for i in range(len(again))] == [file for _, _, file in expected]
        assert len({source.name(i) for i in range(len(source))}) == len(expected)
    has_names = storage in ("folder", "zip of folders", "zip of train/ and val/")
    assert sets.class_names == (CLASSES if has_names else ("0", "1", "2"))


def test_names_of_classes_come_from_folders_or_from_a_file(tmp_path: Path):
    assert build_sets(config_of(write_folders(tmp_path / "a"))).class_names == CLASSES
    shards = write_shards(tmp_path / "b")
    assert build_sets(config_of(shards)).class_names == ("0", "1", "2")
    (shards / "classes.txt").write_text("cat\ndog\nemu\n")
    assert build_sets(config_of(shards)).class_names == CLASSES
    listed = write_list(tmp_path / "c")
    (listed / "meta_data" / "val.txt").unlink()  # the test images are in class folders, then
    assert build_sets(config_of(listed)).class_names == CLASSES


def test_hidden_files_and_other_files_are_no_images(tmp_path: Path):
    root = write_folders(tmp_path / "data")
    for name in (".hidden.jpg", "notes.txt", "Thumbs.db"):
        (root / "train" / "cat" / name).write_text("no image")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / "UPPER.JPEG").write_bytes(encode(picture(0)))
    train = build_sets(config_of(root)).train
    names = [train.name(i) for i in range(len(train))]
    assert len(names) == 13 and sum(name.endswith("UPPER.JPEG") for name in names) == 1
    assert names == sorted(names)


def test_what_macos_adds_to_an_archive_is_no_class(tmp_path: Path):
    root = write_zips(tmp_path / "data", prefix=True)
    for half in ("train", "val"):
        with zipfile.ZipFile(root / f"{half}.zip", "a") as archive:
            archive.writestr(f"__MACOSX/{half}/cat/._0.jpg", b"no image")
            archive.writestr(f"{half}/.DS_Store", b"no image")
    sets = build_sets(config_of(root))
    assert sets.class_names == CLASSES and len(sets.train) == 12


@pytest.mark.parametrize("half", ["train", "val"])
def test_the_real_webdataset_reads_the_shards_in_our_order(tmp_path: Path, half: str):
    root = write_shards(tmp_path / "data")
    source = build_sets(config_of(root)).train if half == "train" else None
    source = source or build_sets(config_of(root)).test
    urls = sorted(map(str, root.glob(f"*-{half}-*.tar")))
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [sample["jpg"] for sample in theirs] == [source.read(i) for i in range(len(source))]
    assert [int(sample["cls"]) for sample in theirs] == source.labels.tolist()


def test_the_index_of_shards_is_kept_and_made_anew_when_a_shard_changes(tmp_path: Path):
    root = write_shards(tmp_path / "data")
    first = build_sets(config_of(root)).train
    index = root / ".train_shards.npz"
    written = index.stat().st_mtime_ns
    assert np.array_equal(build_sets(config_of(root)).train.labels, first.labels)
    assert index.stat().st_mtime_ns == written
    shards = sorted(root.glob("*-train-*.tar"))
    shutil.copyfile(shards[0], shards[-1])  # twelve images in 5 + 5 + 2, now 5 + 5 + 5
    assert len(build_sets(config_of(root)).train) == 15
    index.write_bytes(index.read_bytes()[:100])
    assert len(build_sets(config_of(root)).train) == 15
    assert not list(root.glob("*.tmp"))


def test_shards_in_a_folder_to_read_alone_are_indexed_in_memory(tmp_path: Path, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError("a folder to read alone")

    root = write_shards(tmp_path / "data")
    monkeypatch.setattr("classification.data.shards.tempfile.mkstemp", refuse)
    assert len(build_sets(config_of(root)).train) == 12
    assert not (root / ".train_shards.npz").exists()


def test_evaluation_needs_no_training_images(tmp_path: Path):
    root = write_folders(tmp_path / "data")
    shutil.rmtree(root / "train")
    config = config_of(root)
    with pytest.raises(ValueError, match="expected .* a folder train of class folders"):
        build_sets(config)
    config.EVAL_MODE = True
    assert build_sets(config).class_names == CLASSES


def remove(*names: str) -> Callable[[Path], None]:
    return lambda root: [shutil.rmtree(root / name) for name in names] and None


def cut(name: str, end: int) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:end]) and None


def line(name: str, text: str) -> Callable[[Path], None]:
    def append(root: Path) -> None:
        with open(root / name, "a") as file:
            file.write(text)

    return append


def rewrite_shard(**members: bytes) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        with tarfile.open(root / "imagenet-train-0000.tar", "w") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name.replace("_", "."))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    return write


SHARD = "imagenet-train-0001.tar"
MISTAKES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], str]] = {
    "an empty class folder": (
        write_folders,
        lambda root: ((root / "train" / "yak").mkdir(), (root / "train" / "yak" / "a.txt").touch()),
        "expected images in each class folder of .*train, got none in yak",
    ),
    "no class folder": (
        write_folders,
        remove("train/cat", "train/dog", "train/emu"),
        "expected class folders in .*train, got none",
    ),
    "val has other classes": (
        write_folders,
        lambda root: (root / "val" / "emu").rename(root / "val" / "gnu"),
        "expected the 3 classes of the training images .*, got 3; not known: gnu; missing: emu",
    ),
    "val lacks a class": (write_folders, remove("val/emu"), "got 2; missing: emu"),
    "no val": (
        write_folders,
        remove("val"),
        "expected .* a folder val of class folders; .* got tr",
    ),
    "a label that val's folders do not have": (
        lambda root: (write_list(root), (root / "meta_data" / "val.txt").unlink())[0],
        line("meta_data/train.txt", "cat/deep er/0.jpg 3\n"),
        "expected the 4 classes of the training images in val of .*, got 3",
    ),
    "a label out of range": (
        write_list,
        line("meta_data/val.txt", "cat/deep er/0.jpg 7\n"),
        r"read_list: expected 0 <= label < 3 in .*val.txt, line 7, got 7",
    ),
    "a negative label": (
        write_list,
        line("meta_data/train.txt", "cat/deep er/0.jpg -1\n"),
        r"expected label >= 0 in .*train.txt, line 13, got -1",
    ),
    "a line without a label": (
        write_list,
        line("meta_data/train.txt", "\ncat/x.jpg\n"),
        "expected a path and a whole number in .*train.txt, line 14, got 'cat/x.jpg'",
    ),
    "a label far beyond the others": (
        write_list,
        line("meta_data/train.txt", "cat/deep er/0.jpg 1000000\n"),
        "expected images of each class from 0 to 1000000, the highest label of .*train.txt, got "
        "none of 999,997 of them, such as 3",
    ),
    "a zipped image's label far beyond the others": (
        lambda root: write_zips(root, lists=True),
        line("train_map.txt", "0.jpg\t5\n"),
        "from 0 to 5, the highest label of .*train_map.txt, got none of 2 of them, such as 3",
    ),
    "a shard's label far beyond the others": (
        write_shards,
        rewrite_shard(a_jpg=b"x", a_cls=b"4"),
        "from 0 to 4, the highest label of .*0000.tar, got none of ",
    ),
    "an empty list": (
        write_list,
        lambda root: (root / "meta_data" / "train.txt").write_text("\n"),
        "expected lines of a path and a label in .*train.txt, got none",
    ),
    "a list of files that are elsewhere": (
        write_list,
        lambda root: (root / "train").rename(root / "training"),
        "expected the files of .*train.txt in .*, got none of the first 12, such as cat/deep er/0",
    ),
    "a zip archive cut off": (
        write_zips,
        cut("train.zip", 300),
        "open_zip: expected a whole zip archive, got .*train.zip",
    ),
    "a zip archive without the listed file": (
        lambda root: write_zips(root, lists=True),
        line("train_map.txt", "gone.jpg\t1\n"),
        "expected gone.jpg of .*train_map.txt in .*train.zip, got no such file",
    ),
    "a shard cut off in an image": (
        write_shards,
        cut(SHARD, 2000),
        f"got .*{SHARD}, damaged or cut",
    ),
    "a shard cut off between images": (
        write_shards,
        lambda root: cut(SHARD, tarfile.open(root / SHARD).getmembers()[2].offset)(root),
        f"got .*{SHARD}, damaged or cut off \\(no member and no end at byte",
    ),
    "an empty shard": (write_shards, cut(SHARD, 0), f"got .*{SHARD}, damaged or cut off"),
    "a sample without a label": (
        write_shards,
        rewrite_shard(a_jpg=b"x"),
        "expected one image and a .cls or .json .* of .*0000.tar, got a with .jpg",
    ),
    "a sample with two images": (
        write_shards,
        rewrite_shard(a_jpg=b"x", a_png=b"x", a_cls=b"0"),
        "got a with .jpg, .png, .cls",
    ),
    "a label that is a word": (
        write_shards,
        rewrite_shard(a_jpg=b"x", a_cls=b"cat"),
        "expected a whole number in a.cls of .*0000.tar, got b'cat'",
    ),
    "a shard's label out of range": (
        lambda root: (write_shards(root), (root / "classes.txt").write_text("a\nb\nc"))[0],
        rewrite_shard(a_jpg=b"x", a_cls=b"3"),
        "expected 0 <= label < 3 in .*0000.tar, got 3",
    ),
    "a class named twice": (
        write_shards,
        lambda root: (root / "classes.txt").write_text("cat\ncat\n"),
        "expected different names, one a line, in .*classes.txt, got one twice",
    ),
    "an empty folder": (
        lambda root: (root.mkdir(), root)[1],
        lambda root: None,
        r"expected meta_data/train.txt .*; a folder train .*; train.zip; \*train-\*.tar in .*"
        r"STORAGE auto\), got an empty folder",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_data_is_named(tmp_path: Path, mistake: str):
    write, spoil, message = MISTAKES[mistake]
    root = write(tmp_path / "data")
    spoil(root)
    with pytest.raises(ValueError, match=message):
        build_sets(config_of(root))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"DATA_PATH": ""}, r"expected DATA.DATA_PATH \(--data-path\) beside .* folder, got none"),
        ({"DATA_PATH": "/no/where"}, "expected DATA.DATA_PATH a folder, got /no/where: nothing"),
        ({"STORAGE": "zip"}, r"expected train.zip in .* \(DATA.STORAGE zip\), got train, val"),
        ({"STORAGE": "shards"}, r"expected \*train-\*.tar in .*, got train, val"),
        ({"STORAGE": "list"}, "expected meta_data/train.txt or train.txt, also .zip in"),
        ({"ZIP_MODE": True}, "expected train.zip in"),
        ({"DATASET": "foldr"}, "got 'foldr'; did you mean folder?"),
    ],
)
def test_a_setting_that_does_not_fit_the_data_is_an_error(tmp_path: Path, data, message: str):
    root = write_folders(tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        build_sets(config_of(root, **data))


def test_more_files_than_may_be_open_are_all_read(tmp_path: Path):
    paths = [tmp_path / str(number) for number in range(MAX_OPEN + 3)]
    for path in paths:
        path.write_text(path.name * 3)
    files = OpenFiles([str(path) for path in paths])
    for _ in range(2):
        for number, path in enumerate(paths):
            assert files.read(number, len(path.name), len(path.name)) == path.name.encode()
    with pytest.raises(OSError, match="expected 9 bytes at 0 of .*0, got 3"):
        files.read(0, 0, 9)


def test_threads_read_together_and_none_closes_the_file_of_another(tmp_path, monkeypatch):
    paths = [tmp_path / str(number) for number in range(MAX_OPEN + 1)]
    for path in paths:
        path.write_text(f"{path.name:>4}")
    files = OpenFiles([str(path) for path in paths])
    pread = os.pread
    is_first = [True]

    def read_slowly(descriptor: int, size: int, offset: int) -> bytes:
        assert not files._lock.locked()  # or the others would have to wait
        if is_first:  # meanwhile another thread reads from so many files that one is closed
            is_first.clear()
            for other in range(1, len(paths)):
                files.read(other, 0, 4)
        return pread(descriptor, size, offset)

    monkeypatch.setattr("classification.data.open_files.os.pread", read_slowly)
    assert files.read(0, 0, 4) == b"   0"
    descriptors = [descriptor.number for descriptor in files._open.values()]
    assert len(descriptors) == MAX_OPEN
    files._open.clear()
    for number in descriptors:  # what nobody holds is closed
        with pytest.raises(OSError):
            os.fstat(number)


def test_names_are_kept_whatever_their_bytes_are():
    names = ["a b.jpg", "", "ümlaut/猫.png", os.fsdecode(b"latin \xe4.jpg")]
    assert list(PackedPaths(iter(names))) == names
    assert len(PackedPaths([])) == 0
