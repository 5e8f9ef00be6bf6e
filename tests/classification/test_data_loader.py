"""Batches depend on seed, epoch and image alone; bad files are counted; images stay in memory."""

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data import Batch, Data, build_data
from classification.data.loader import MAX_BAD_IN_A_ROW
from classification.data.source import FileSource, ImageSets
from classification.distributed import Ranks
from tests.classification.image_files import (
    each_file,
    encode,
    picture,
    write_folders,
    write_shards,
    write_zips,
)

CPU = torch.device("cpu")
BATCH = 3


def config_of(path: Path, **data: object) -> CfgNode:
    config = get_default_config()
    config.DATA.update(
        {
            "DATASET": "folder",
            "DATA_PATH": str(path),
            "BATCH_SIZE": BATCH,
            "IMG_SIZE": 16,
            "NUM_WORKERS": 0,
        }
        | data
    )
    return config


def data_of(path: Path, *, rank: int = 0, world_size: int = 1, **data: object) -> Data:
    return build_data(config_of(path, **data), Ranks(rank, world_size, CPU))


def random_states() -> list[object]:
    _, numbers, place, *_ = np.random.get_state()
    return [random.getstate(), numbers.tolist(), place, torch.get_rng_state().tolist()]


def assert_same(batches: list[Batch], expected: list[Batch]) -> None:
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.labels, other.labels)
        assert all(map(torch.equal, batch.meta, other.meta))
        assert batch.bad_files == other.bad_files


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data", train=7, val=3)  # 21 and 9 images


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_resumes_at_any_batch_with_any_number_of_workers(folders, num_workers: int):
    expected = list(data_of(folders).train_loader.batches(1))
    loader = data_of(folders, NUM_WORKERS=num_workers).train_loader
    assert len(loader) == len(expected) == 7
    before = random_states()
    for first in (0, 1, 4, 6, 7):
        assert_same(list(loader.batches(1, first)), expected[first:])
    # An iteration that was left early leaves nothing behind for the next one.
    abandoned = loader.batches(0)
    next(abandoned)
    assert_same(list(loader.batches(1, 5)), expected[5:])
    assert random_states() == before


def test_batches_do_not_depend_on_what_was_drawn_before(folders):
    loader = data_of(folders).train_loader
    first = list(loader.batches(0))
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    assert_same(list(loader.batches(0)), first)
    second = list(loader.batches(1))
    assert not torch.equal(second[0].images, first[0].images)
    assert all(batch.images.shape == (BATCH, 3, 16, 16) for batch in first)
    assert all(batch.images.dtype == torch.uint8 for batch in first)


def test_ranks_have_disjoint_images_and_equally_many_batches(folders):
    ranks = [data_of(folders, rank=rank, world_size=2, BATCH_SIZE=5) for rank in range(2)]
    seen = []
    for data in ranks:
        batches = list(data.train_loader.batches(0))
        assert len(batches) == len(data.train_loader) == 2
        assert [len(batch.labels) for batch in batches] == [5, 5]
        seen.append(set(data.train_loader.order.of_epoch(0)[:10].tolist()))
    assert not seen[0] & seen[1]
    labels = [sum((batch.labels.tolist() for batch in data.test_loader), []) for data in ranks]
    assert sorted(sum(labels, [])) == [0] * 3 + [1] * 3 + [2] * 3
    assert [len(data.test_loader) for data in ranks] == [1, 1]


def test_every_rank_has_all_test_images_in_sequence(folders):
    config = config_of(folders)
    config.TEST.SEQUENTIAL = True
    data = build_data(config, Ranks(1, 2, CPU))
    labels = torch.cat([batch.labels for batch in data.test_loader])
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and data.num_test_images == 9


@pytest.mark.parametrize("num_workers", [0, 2])
def test_testing_with_random_crops_is_the_same_each_time(folders, num_workers: int):
    config = config_of(folders, NUM_WORKERS=num_workers)
    config.TEST.CROP, config.AUG.RANDOM_RESIZED_CROP = False, True
    loader = build_data(config, Ranks(0, 1, CPU)).test_loader
    before = random_states()
    first = list(loader)
    random.seed(5)
    assert_same(list(loader), first)
    random.setstate(before[0])
    assert random_states() == before


BAD = {"cut off": encode(picture(0, (300, 200)))[:900], "empty": b"", "text": b"no image"}
REASONS = {
    "cut off": "truncated or broken (OSError: image file is truncated (",
    "empty": "the empty file)",
    "text": "which is none that Pillow can read)",
    "gone": "No such file or directory)",
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", REASONS)
def test_a_bad_file_is_named_and_another_image_takes_its_place(folders, kind, num_workers: int):
    good = [list(data_of(folders).train_loader.batches(e)) for e in range(2)]
    files = {
        half: [folders / half / path for path, _, _ in each_file(folders, half)]
        for half in ("train", "val")
    }
    spoiled = {half: paths[4] for half, paths in files.items()}
    config = config_of(folders, NUM_WORKERS=num_workers)
    data = build_data(config, Ranks(0, 1, CPU))
    for path in spoiled.values():
        path.unlink() if kind == "gone" else path.write_bytes(BAD[kind])
    for epoch in range(2):
        batches = list(data.train_loader.batches(epoch))
        order = data.train_loader.order.of_epoch(epoch)
        place = order.tolist().index(4)
        for number, (batch, other) in enumerate(zip(batches, good[epoch], strict=True)):
            if number == place // BATCH:
                (bad,) = batch.bad_files
                assert bad.startswith(f"{spoiled['train']} ({REASONS[kind]}")
                same = [i for i in range(BATCH) if i != place % BATCH]
                assert torch.equal(batch.images[same], other.images[same])
                assert batch.labels[place % BATCH] == 5 // 7  # of the next image
            else:
                assert_same([batch], [other])
    tests = list(data.test_loader)
    assert [len(batch.images) for batch in tests] == [3, 2, 3]
    assert [len(batch.bad_files) for batch in tests] == [0, 1, 0]
    assert tests[1].bad_files[0].startswith(f"{spoiled['val']} ({REASONS[kind]}")


def test_a_test_batch_of_bad_files_alone_is_empty(folders):
    for path, _, _ in each_file(folders, "val"):
        (folders / "val" / path).write_bytes(b"")
    data = data_of(folders, BATCH_SIZE=9)
    (batch,) = data.test_loader
    assert batch.images.shape == (0, 3, 16, 16) and batch.labels.shape == (0,)
    assert len(batch.bad_files) == 9
    assert data.finish_test(batch.images).shape == (0, 3, 16, 16)


def test_bad_neighbours_are_named_once_each(folders):
    paths = [folders / "train" / path for path, _, _ in each_file(folders, "train")]
    data = data_of(folders, BATCH_SIZE=1)
    for path in paths[5:8]:
        path.write_bytes(b"")
    for epoch in range(2):
        bad = [path for batch in data.train_loader.batches(epoch) for path in batch.bad_files]
        assert sorted(bad) == [f"{path} (the empty file)" for path in paths[5:8]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_bad_files_in_a_row_are_one_error(tmp_path: Path, num_workers: int):
    root = write_folders(tmp_path / "data", train=20)
    for path, _, _ in each_file(root, "train"):
        (root / "train" / path).write_bytes(b"")
    loader = data_of(root, NUM_WORKERS=num_workers).train_loader
    with pytest.raises(ValueError) as caught:
        list(loader.batches(0))
    assert f"a readable image among {MAX_BAD_IN_A_ROW} in a row, got none from" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_worker_that_is_killed_is_one_error(folders):
    loader = data_of(folders, NUM_WORKERS=1, BATCH_SIZE=1).train_loader
    batches = loader.batches(0)
    next(batches)
    (worker,) = loader.workers.held["iterator"]._workers
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="expected DATA.NUM_WORKERS 1 processes .*, got one that was"):
        list(batches)


def test_workers_outlive_the_signals_that_stop_a_run(folders):
    loader = data_of(folders, NUM_WORKERS=1, BATCH_SIZE=1).train_loader
    batches = loader.batches(0)
    next(batches)
    (worker,) = loader.workers.held["iterator"]._workers
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert len(list(batches)) == 20


CACHED = {
    "folder, part": (write_folders, {"IMG_ON_MEMORY": True}),
    "folder, full": (write_folders, {"IMG_ON_MEMORY": True, "CACHE_MODE": "full"}),
    "shards, part": (write_shards, {"IMG_ON_MEMORY": True}),
    "zip, part": (write_zips, {"ZIP_MODE": True}),
    "zip, full": (write_zips, {"ZIP_MODE": True, "CACHE_MODE": "full"}),
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", CACHED)
def test_images_in_memory_are_those_on_the_disk(tmp_path: Path, name: str, num_workers: int):
    write, settings = CACHED[name]
    root = write(tmp_path / "data")
    common = {"rank": 1, "world_size": 2, "NUM_WORKERS": num_workers}
    data = data_of(root, **common, **settings)
    on_disk = data_of(root, **common)
    cached, plain = data.train_loader, on_disk.train_loader
    source = cached.workers.held["loader"].dataset.source
    is_full = "full" in name
    assert len(source.contents) == (12 if is_full else 6)
    if not is_full:
        plain.order = cached.order  # a rank keeps its share of the images
        assert set(cached.order.of_epoch(0)) <= {1, 3, 5, 7, 9, 11}
    expected = [list(plain.batches(epoch)) for epoch in range(2)]
    expected_tests = list(on_disk.test_loader)
    for path in root.rglob("*.*"):
        if path.is_file():
            path.unlink()  # all is in memory
    for epoch in range(2):
        assert_same(list(cached.batches(epoch)), expected[epoch])
        assert not any(batch.bad_files for batch in expected[epoch])
    assert_same(list(data.test_loader), expected_tests)


def test_zip_mode_without_cache_reads_the_archive(tmp_path: Path):
    root = write_zips(tmp_path / "data")
    zipped = data_of(root, ZIP_MODE=True, CACHE_MODE="no").train_loader
    folders = data_of(write_folders(tmp_path / "folders")).train_loader
    assert_same(list(zipped.batches(0)), list(folders.batches(0)))


def test_a_bad_file_in_memory_is_named_as_well(folders):
    paths = [folders / "train" / path for path, _, _ in each_file(folders, "train")]
    paths[3].write_bytes(b"no image")
    paths[8].unlink()
    paths[8].symlink_to("nowhere.jpg")  # found, and not to be read
    loader = data_of(folders, IMG_ON_MEMORY=True, CACHE_MODE="full").train_loader
    bad = [path for batch in loader.batches(0) for path in batch.bad_files]
    assert [name.partition(" (")[0] for name in sorted(bad)] == [str(paths[3]), str(paths[8])]


def test_progress_is_shown_in_the_terminal_of_the_first_rank(folders, capsys, monkeypatch):
    for is_terminal in (True, False):
        monkeypatch.setenv("FORCE_COLOR", "1" if is_terminal else "")  # of the rich package
        for rank in range(2):
            data_of(folders, rank=rank, world_size=2, IMG_ON_MEMORY=True)
            shown = "reading images" in "".join(capsys.readouterr())
            assert shown == (is_terminal and rank == 0)


@pytest.mark.parametrize("mode", ["EVAL_MODE", "THROUGHPUT_MODE"])
def test_what_is_looked_at_once_is_not_kept_in_memory(folders, mode: str, monkeypatch):
    read = []
    monkeypatch.setattr(FileSource, "read", lambda self, index: read.append(index))
    config = config_of(folders, IMG_ON_MEMORY=True)
    config[mode] = True
    build_data(config, Ranks(0, 1, CPU))
    assert not read


def test_one_class_alone_is_said_once(tmp_path: Path, recwarn):
    root = write_folders(tmp_path / "data")
    for half in ("train", "val"):
        for name in ("cat", "dog"):
            shutil.rmtree(root / half / name)
    for rank in range(2):
        data_of(root, rank=rank, world_size=2, BATCH_SIZE=2)
    said = [str(warning.message) for warning in recwarn]
    assert said == ["the only class is emu: there is nothing to tell it from"]


def test_meta_travels_with_its_image(folders, monkeypatch):
    files = list(each_file(folders, "train"))
    labels = [label for _, label, _ in files]
    numbers = np.arange(len(files))
    source = FileSource(
        folders / "train",
        [path for path, _, _ in files],
        labels,
        ["a", "b", "c"],
        meta=[numbers[:, None] * [1.0, 2.0], numbers[:, None] * [3.0]],
    )
    sets = ImageSets(source, source, ("a", "b", "c"))
    monkeypatch.setattr("classification.data.DATASETS", {"folder": lambda config: sets})
    data = data_of(folders, NUM_WORKERS=1)
    (folders / "train" / files[2][0]).write_bytes(b"")
    order = data.train_loader.order.of_epoch(0)
    order[order == 2] = 3  # the image in the place of the bad one
    batches = list(data.train_loader.batches(0))
    meta = [torch.cat([batch.meta[place] for batch in batches]) for place in range(2)]
    assert meta[0].tolist() == [[i, 2 * i] for i in order]
    assert meta[1].tolist() == [[3 * i] for i in order]
    assert meta[0].dtype == torch.float32
    tests = torch.cat([batch.meta[1] for batch in data.test_loader])
    assert tests[:, 0].tolist() == [3 * i for i in numbers if i != 2]
