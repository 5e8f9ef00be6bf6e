"""What several ranks do together: one looks through the storage, the others are told."""

import json
import multiprocessing
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from classification.config import get_default_config
from classification.data import build_data, shards
from classification.distributed import Ranks
from tests.classification.image_files import write_shards


def build_on_rank(rank: int, root: Path, seconds_a_shard: float) -> None:
    """Builds the data of one of two ranks; leaves what it has seen in a file."""
    torch.set_num_threads(1)  # a forked process has none of its parent's
    store = f"file://{root.parent}/store"
    patience = timedelta(seconds=3)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    scanned = []
    scan = shards.scan_shard

    def scan_slowly(path: Path) -> list[shards.Sample]:
        threading.Event().wait(seconds_a_shard)
        scanned.append(path)
        return scan(path)

    shards.scan_shard = scan_slowly
    config = get_default_config()
    config.DATA.update({"DATASET": "folder", "DATA_PATH": str(root), "BATCH_SIZE": 3})
    config.DATA.update({"IMG_SIZE": 8, "NUM_WORKERS": 0})
    try:
        data = build_data(config, Ranks(rank, 2, torch.device("cpu")))
        shares = (data.train_loader.batches(0), data.test_loader)
        images = [sum((batch.labels.tolist() for batch in batches), []) for batches in shares]
        result = {"num_scanned": len(scanned), "train": images[0], "test": images[1]}
    except (OSError, ValueError) as error:
        result = {"error": str(error)}
    (root.parent / f"rank{rank}").write_text(json.dumps(result))
    dist.destroy_process_group()


def build_on_two_ranks(root: Path, *, seconds_a_shard: float = 0.0) -> list[dict]:
    context = multiprocessing.get_context("fork")
    arguments = [(rank, root, seconds_a_shard) for rank in range(2)]
    processes = [context.Process(target=build_on_rank, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    return [json.loads((root.parent / f"rank{rank}").read_text()) for rank in range(2)]


@pytest.mark.parametrize("may_write", [True, False])
def test_one_rank_looks_through_the_shards_and_all_have_them(tmp_path, may_write, monkeypatch):
    if not may_write:
        monkeypatch.setattr("classification.data.shards._save_index", lambda path, index: None)
    root = write_shards(tmp_path / "data")
    results = build_on_two_ranks(root)
    # Twelve images and six, five in a shard.
    assert [result["num_scanned"] for result in results] == [5, 0]
    assert [len(result["train"]) for result in results] == [6, 6]
    assert sorted(results[0]["test"] + results[1]["test"]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.slow
def test_the_others_wait_longer_for_a_slow_storage_than_for_a_lost_rank(tmp_path):
    results = build_on_two_ranks(write_shards(tmp_path / "data"), seconds_a_shard=1.0)
    assert [result["num_scanned"] for result in results] == [5, 0]


def test_a_mistake_in_the_data_is_told_to_all_ranks(tmp_path):
    root = write_shards(tmp_path / "data")
    (root / "imagenet-train-0002.tar").write_bytes(b"")
    results = build_on_two_ranks(root)
    assert results[0] == results[1] and "0002.tar, damaged or cut" in results[0]["error"]
