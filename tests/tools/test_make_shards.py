"""Class folders become shards that this project and WebDataset read."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from classification.config import get_default_config
from classification.data.storage import open_storage
from tools.make_shards import main

NUM_TRAIN, NUM_VAL = 23, 5
CLASSES = ("ant", "bee", "wasp nest")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Images of one grey value each, which tells them apart: PNG, and JPEG called .JPEG."""
    for half, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for index in range(count):
            suffix = ".png" if index % 2 else ".JPEG"
            path = tmp_path / "data" / half / CLASSES[index % 3] / f"{index}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), index * 10).save(path)
    return tmp_path / "data"


@pytest.fixture
def make(folders, tmp_path, capsys) -> Callable[..., tuple[int, str]]:
    """Runs the tool with shards of four; returns exit code and what it printed."""

    def call(*arguments: object, out: str = "shards") -> tuple[int, str]:
        common = ["--data-path", folders, "--out", tmp_path / out, "--workers", 1]
        code = main([*map(str, common), "--shard-size", "4", *map(str, arguments)])
        return code, "".join(capsys.readouterr())

    return call


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_the_shards_hold_the_images_of_the_folders(make, folders, tmp_path):
    code, printed = make()
    assert code == 0 and "23 train images in 6 shards (6 written now)" in printed
    config = get_default_config()
    found = []
    for path in (folders, tmp_path / "shards"):
        config.DATA.DATA_PATH = str(path)
        sets = open_storage(config)
        assert sets.class_names == CLASSES
        for source in (sets.train, sets.test):
            found.append([(source.read(i), int(source.labels[i])) for i in range(len(source))])
    in_folders, in_shards = found[:2], found[2:]
    assert sorted(in_shards[0]) == sorted(in_folders[0]) and in_shards[0] != in_folders[0]
    assert in_shards[1] == in_folders[1]
    labels = [label for _, label in in_shards[0][:8]]
    assert len(set(labels)) > 1  # the folders have eight ants first


def test_webdataset_reads_the_shards(make, tmp_path):
    make()
    urls = sorted(str(path) for path in (tmp_path / "shards").glob("train-*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{i:09}" for i in range(NUM_TRAIN)]
    for sample in samples:
        assert ("jpg" in sample) != ("png" in sample)
        assert int(sample["cls"]) in range(3)
    index = json.loads((tmp_path / "shards" / "train-index.json").read_text())
    assert [entry["nsamples"] for entry in index["shardlist"]] == [4, 4, 4, 4, 4, 3]
    for entry in index["shardlist"]:
        assert (tmp_path / "shards" / entry["url"]).stat().st_size == entry["filesize"]


def test_the_same_images_and_seed_give_the_same_bytes(make, tmp_path):
    for out, seed in (("first", 1), ("second", 1), ("third", 2)):
        assert make("--seed", seed, out=out)[0] == 0
    first, second, third = (shard_bytes(tmp_path / out) for out in ("first", "second", "third"))
    assert first == second
    assert first.keys() == third.keys()
    assert {name for name in first if first[name] == third[name]} == {
        "val-000000.tar",
        "val-000001.tar",
    }


@pytest.mark.slow
def test_several_processes_write_what_one_writes(make, tmp_path):
    make("--halves", "train", out="one")
    assert make("--halves", "train", "--workers", 2, out="two")[0] == 0
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")


def test_an_interrupted_run_goes_on(make, folders, tmp_path):
    assert make(out="whole")[0] == 0
    hidden = folders / "val" / "wasp nest" / "2.JPEG"  # the last one
    hidden.rename(tmp_path / "2.JPEG")
    hidden.symlink_to(tmp_path / "gone")  # listed, and cannot be read
    code, printed = make()
    assert code == 2 and printed.count("\n") == 2 and "wasp nest/2.JPEG" in printed
    there = shard_bytes(tmp_path / "shards")
    assert len(there) == 7
    for path in (tmp_path / "shards").glob("*.tar"):
        with tarfile.open(path) as archive:  # whole: no half shard has a name
            assert len(archive.getnames()) == (6 if path.name == "train-000005.tar" else 8)
    hidden.unlink()
    (tmp_path / "2.JPEG").rename(hidden)
    (tmp_path / "shards" / "train-000002.tar").unlink()
    code, printed = make()
    assert code == 0 and printed.count("(1 written now)") == 2
    assert shard_bytes(tmp_path / "shards") == shard_bytes(tmp_path / "whole")
    assert "(0 written now)" in make()[1]


def test_what_a_killed_run_leaves_is_neither_read_nor_kept(make, tmp_path):
    make(out="whole")
    make()
    shards = tmp_path / "shards"
    whole = (shards / "train-000003.tar").read_bytes()
    (shards / "train-000003.tar").unlink()
    (shards / ".train-000003.0123abcd.tar").write_bytes(whole[:700])
    config = get_default_config()
    config.DATA.DATA_PATH = str(shards)
    assert len(open_storage(config).train) == NUM_TRAIN - 4
    assert make()[0] == 0
    assert shard_bytes(shards) == shard_bytes(tmp_path / "whole")
    assert not list(shards.glob(".*.tar"))


def test_shards_of_something_else_are_not_mixed_in(make, folders, tmp_path):
    make()
    before = shard_bytes(tmp_path / "shards")
    for arguments in (["--seed", 5], ["--shard-size", 5]):
        code, printed = make(*arguments)
        assert code == 2 and "expected a new --out, or one with shards of the same" in printed
    (folders / "train" / "ant" / "0.JPEG").rename(folders / "train" / "ant" / "zero.JPEG")
    assert make()[0] == 2
    (tmp_path / "shards" / "train-index.json").unlink()
    assert make()[0] == 2
    assert shard_bytes(tmp_path / "shards") == before


def test_the_classes_of_other_shards_stay_as_they_are(make, folders, tmp_path):
    classes = tmp_path / "shards" / "classes.txt"
    assert make("--halves", "train")[0] == 0
    before = classes.read_text()
    for half in ("train", "val"):
        (folders / half / "wasp nest").rename(folders / half / "hornet")
    for halves in (["val"], ["train"], ["train", "val"]):
        code, printed = make("--halves", *halves)
        assert code == 2 and "expected a new --out, or one with these 3 classes" in printed
    assert classes.read_text() == before
    classes.unlink()
    assert make("--halves", "train")[0] == 2  # the shards are still of the other classes
    assert not list((tmp_path / "shards").glob("val-*"))


def test_one_half_alone(make, tmp_path):
    assert make("--halves", "val")[0] == 0
    assert sorted(shard_bytes(tmp_path / "shards")) == ["val-000000.tar", "val-000001.tar"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard-size", 0], "expected --shard-size >= 1, got 0"),
        (["--workers", 0], "expected --workers >= 1, got 0"),
        (["--data-path", "/nothing"], "expected DATA.DATA_PATH a folder, got /nothing"),
        (["--storage", "zip"], "expected train.zip in"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, make):
    code, printed = make(*arguments)
    assert code == 2 and message in printed and printed.count("\n") == 1
