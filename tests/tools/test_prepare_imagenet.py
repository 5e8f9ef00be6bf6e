"""ImageNet's official archives, made small: unpacked, gone on with, cut off, hostile."""

import errno
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from classification.data.class_lists import wordnet_ids
from tools import prepare_imagenet
from tools.prepare_imagenet import main

WNIDS = wordnet_ids("imagenet-1k")[:4]
NUM_A_CLASS = 3


def tar_of(files: dict[str, bytes], **changes: object) -> bytes:
    """A tar file; ``changes`` go to the header of the last member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index, (name, content) in enumerate(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if index == len(files) - 1:
                for key, value in changes.items():
                    setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def content_of(wordnet_id: str, index: int) -> bytes:
    return f"{wordnet_id} {index} ".encode() * (100 + index)


def class_tar(wordnet_id: str) -> bytes:
    names = [f"{wordnet_id}_{index}.JPEG" for index in range(NUM_A_CLASS)]
    return tar_of({name: content_of(wordnet_id, index) for index, name in enumerate(names)})


@pytest.fixture
def train_tar(tmp_path: Path) -> Path:
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(tar_of({f"{wordnet_id}.tar": class_tar(wordnet_id) for wordnet_id in WNIDS}))
    return path


@pytest.fixture
def val_tar(tmp_path: Path) -> Path:
    path = tmp_path / "ILSVRC2012_img_val.tar"
    names = [f"ILSVRC2012_val_{index:08}.JPEG" for index in range(1, 6)]
    path.write_bytes(tar_of({name: name.encode() * 50 for name in names}))
    return path


@pytest.fixture
def unpack(tmp_path: Path, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the tool; returns exit code, output, errors."""

    def call(*arguments: object, partial: bool = True) -> tuple[int, str, str]:
        flags = ["--allow-partial"] if partial else []
        code = main(["--out", str(tmp_path / "out"), *flags, *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def devkit_files() -> dict[str, bytes]:
    """The devkit's own numbers are no order of ids: here the classes count backwards."""
    names = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("num_children", "f8")]
    rows = [(len(WNIDS) - index, wordnet_id, 0) for index, wordnet_id in enumerate(WNIDS)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array([*rows, (1001, "n00001740", 5)], dtype=names)})
    return {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"4\n3\n2\n1\n4\n",
    }


def test_each_class_becomes_a_folder_with_its_files(train_tar, unpack, tmp_path):
    code, printed, _ = unpack("--train", train_tar)
    assert (code, printed) == (0, f"{tmp_path / 'out' / 'train'}: 12 images (12 written now)\n")
    for wordnet_id in WNIDS:
        files = sorted((tmp_path / "out" / "train" / wordnet_id).iterdir())
        assert [path.name for path in files] == [f"{wordnet_id}_{i}.JPEG" for i in range(3)]
        assert [path.read_bytes() for path in files] == [
            content_of(wordnet_id, i) for i in range(3)
        ]


@pytest.mark.parametrize("form", ["archive", "folder", "indices", "ids"])
def test_validation_images_go_to_the_class_of_their_label(form, val_tar, unpack, tmp_path):
    labels = tmp_path / "labels"
    names = [f"ILSVRC2012_val_{index:08}.JPEG" for index in range(1, 6)]
    classes = [0, 1, 2, 3, 0]
    if form == "archive":
        with tarfile.open(labels, "w:gz") as archive:
            for name, content in devkit_files().items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    elif form == "folder":
        for name, content in devkit_files().items():
            (labels / name).parent.mkdir(parents=True, exist_ok=True)
            (labels / name).write_bytes(content)
    else:
        shown = classes if form == "indices" else [WNIDS[index] for index in classes]
        labels.write_text("".join(f"{n} {c}\n" for n, c in zip(names, shown, strict=True)))
    assert unpack("--val", val_tar, "--val-labels", labels)[0] == 0
    for name, index in zip(names, classes, strict=True):
        path = tmp_path / "out" / "val" / WNIDS[index] / name
        assert path.read_bytes() == name.encode() * 50


def test_an_interrupted_run_goes_on_and_repairs_files_of_another_size(
    train_tar, unpack, tmp_path, monkeypatch
):
    write, done = prepare_imagenet._write, []

    def full_disk(path: Path, image: prepare_imagenet.Image) -> None:
        if len(done) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        done.append(path)
        write(path, image)

    monkeypatch.setattr(prepare_imagenet, "_write", full_disk)
    code, _, errors = unpack("--train", train_tar)
    assert code == 2 and errors.count("\n") == 1
    assert "No space left on device" in errors and "the same command goes on from here" in errors
    monkeypatch.setattr(prepare_imagenet, "_write", write)

    kept, damaged = done[0], done[1]
    kept.touch()
    os.utime(kept, (1, 1))
    damaged.write_bytes(b"half")
    (kept.parent / f".{kept.name}.part").write_bytes(b"left by a kill")
    code, printed, _ = unpack("--train", train_tar)
    assert (code, printed.endswith("12 images (8 written now)\n")) == (0, True)
    assert kept.stat().st_mtime == 1
    files = [path for path in (tmp_path / "out" / "train").rglob("*") if path.is_file()]
    assert len(files) == 12 and damaged.read_bytes() == content_of(WNIDS[0], 1)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_an_archive_that_is_cut_off_is_an_error(share, train_tar, unpack, tmp_path):
    whole = train_tar.read_bytes()
    train_tar.write_bytes(whole[: int(share * len(whole))])
    code, _, errors = unpack("--train", train_tar)
    assert code == 2 and "tar file, got" in errors
    for path in (tmp_path / "out").rglob("*.JPEG"):  # what is there is whole
        assert path.read_bytes() == content_of(path.parent.name, int(path.stem[-1]))
    train_tar.write_bytes(whole)
    assert unpack("--train", train_tar)[0] == 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("../evil.JPEG", {}),
        ("/tmp/evil.JPEG", {}),
        ("a/../../evil.JPEG", {}),
        ("..", {}),
        (".hidden", {}),
        ("link.JPEG", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}),
        ("hard.JPEG", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd", "size": 0}),
        ("device.JPEG", {"type": tarfile.CHRTYPE, "size": 0}),
    ],
)
def test_a_name_that_leads_elsewhere_and_a_link_are_refused(
    name, changes, train_tar, unpack, tmp_path
):
    inner = tar_of({f"{WNIDS[0]}_0.JPEG": b"fine", name: b"evil"}, **changes)
    train_tar.write_bytes(tar_of({f"{WNIDS[0]}.tar": inner}))
    code, _, errors = unpack("--train", train_tar)
    assert code == 2 and "expected plain files without folders" in errors
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {f"{WNIDS[0]}_0.JPEG", train_tar.name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --train, --val or both, got neither"),
        (["--val", "{val}"], "expected --val and --val-labels together"),
        (["--train", "{none}"], "expected the file ILSVRC2012_img_train.tar, got no file at"),
        (["--train", "{text}"], "expected a tar file, got"),
        (["--train", "{val}"], "expected WNID.tar of the 1,000 classes in"),
        (["--train", "{train}", "--check"], "expected MD5 1d675b47d978889d74fa0da5fadfb00e"),
        (["--val", "{val}", "--val-labels", "{none}"], "expected the devkit or a list"),
        (["--val", "{val}", "--val-labels", "{folder}"], "expected data/ILSVRC2012_validation_gr"),
        (["--val", "{val}", "--val-labels", "{train}"], "expected ILSVRC2012_validation_ground"),
        (["--val", "{val}", "--val-labels", "{text}"], "expected NAME and a class .* in line 2"),
        (["--val", "{val}", "--val-labels", "{short}"], "expected a label for each image .* none"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, train_tar, val_tar, unpack, tmp_path):
    (tmp_path / "text").write_text("ILSVRC2012_val_00000001.JPEG 0\nILSVRC2012_val_2.JPEG 1000\n")
    (tmp_path / "short").write_text("ILSVRC2012_val_00000001.JPEG 999\n")
    (tmp_path / "folder").mkdir()
    names = {name: tmp_path / name for name in ("none", "text", "short", "folder")}
    places = {"train": train_tar, "val": val_tar, **names}
    code, _, errors = unpack(*(argument.format(**places) for argument in arguments))
    assert code == 2 and errors.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(errors)


def test_too_few_images_and_foreign_files_are_errors(train_tar, unpack, tmp_path):
    code, _, errors = unpack("--train", train_tar, partial=False)
    assert code == 2 and "expected 1,281,167 images" in errors and "got 12" in errors
    (tmp_path / "out" / "train" / WNIDS[1] / "mine.JPEG").write_bytes(b"x")
    code, _, errors = unpack("--train", train_tar)
    assert code == 2 and "got 1 other files, the first mine.JPEG" in errors
