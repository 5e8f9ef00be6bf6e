"""Packs a data set into WebDataset shards: few large files, which a cluster's storage likes.

python tools/make_shards.py --data-path imagenet --out imagenet_shards

Takes class folders, lists, zip archives or other shards (as DATA.STORAGE does) and writes

    train-000000.tar ...   members 000000000.jpg and 000000000.cls (the class as text), and so on;
                           shuffled, so that neighbours are of different classes
    val-000000.tar ...     in the order that they have
    classes.txt            the name of each class
    train-index.json ...   which shards there are, in the form of WebDataset's wids

A shard is whole or absent. The same command, given again, writes the shards that are missing.
``train.py --data-path imagenet_shards`` reads the result.
"""

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from classification.config import get_default_config
from classification.data.source import Source
from classification.data.storage import open_half, open_storage
from internimage.files import write_atomically
from tools.command_line import progress, run_tool

NAME = "make_shards"


class Plan(NamedTuple):
    """Which images go to which shard.

    Args:
        source: The images.
        half: "train" or "val".
        order: (I,) The order of the images.
        shard_size: Images a shard; the last one may have fewer.
        out: The folder of the shards.
    """

    source: Source
    half: str
    order: np.ndarray
    shard_size: int
    out: Path

    @property
    def num_shards(self) -> int:
        """How many shards there are."""
        return math.ceil(len(self.order) / self.shard_size)

    def path(self, shard: int) -> Path:
        """Returns the file of a shard."""
        return self.out / f"{self.half}-{shard:06}.tar"

    def positions(self, shard: int) -> range:
        """Returns the places in ``order`` of a shard's images."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, len(self.order)))

    def fingerprint(self) -> str:
        """Returns a text that differs for other images, classes, order or size."""
        digest = hashlib.sha256(f"{self.shard_size}\n".encode())
        digest.update(self.order.astype("<i8").tobytes())
        digest.update(self.source.labels.astype("<i8").tobytes())
        digest.update("".join(f"{name}\n" for name in self.source.class_names).encode())
        for index in range(len(self.source)):
            digest.update(Path(self.source.name(index)).name.encode(errors="surrogateescape"))
        return digest.hexdigest()


_plan: Plan  # of a worker process, set once: the plan of a million images is sent to each but once


def make_shards(
    source: Source, half: str, out: Path, *, shard_size: int, seed: int, workers: int
) -> int:
    """Writes the shards of one half that are missing; returns how many were written.

    Args:
        source: The images.
        half: "train", shuffled, or "val".
        out: The folder to fill.
        shard_size: Images a shard.
        seed: Of the shuffling.
        workers: Processes.

    Raises:
        ValueError: The shards that are there are of other images or other arguments.
        OSError: An image cannot be read or the disk is full; whole shards stay.
    """
    order = np.arange(len(source))
    if half == "train":
        np.random.default_rng(seed).shuffle(order)
    plan = Plan(source, half, order, shard_size, out)
    index_path = out / f"{half}-index.json"
    index: dict[str, Any] = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "fingerprint": plan.fingerprint(),
        "shardlist": [],
    }
    if index_path.exists() or plan.path(0).exists():
        _check_same(index_path, index["fingerprint"])
    else:
        _write_json(index_path, index)
    for leftover in out.glob(f".{half}-*.*.tar"):  # of a killed process: see write_atomically
        leftover.unlink()
    missing = [shard for shard in range(plan.num_shards) if not plan.path(shard).exists()]
    with progress(f"{half} shards", len(missing)) as advance:
        for _ in _write_shards(plan, missing, workers):
            advance(1)
    index["shardlist"] = [
        {
            "url": plan.path(shard).name,
            "nsamples": len(plan.positions(shard)),
            "filesize": plan.path(shard).stat().st_size,
        }
        for shard in range(plan.num_shards)
    ]
    _write_json(index_path, index)
    return len(missing)


def _check_same(path: Path, fingerprint: str) -> None:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        there = None
    if there != fingerprint:
        raise ValueError(
            f"{NAME}: expected a new --out, or one with shards of the same images, --shard-size "
            f"and --seed, got {path.parent} with others"
        )


def _write_classes(path: Path, names: Sequence[str]) -> None:
    """Names the classes of all shards of a folder, or checks that they have these names."""
    text = "".join(f"{name}\n" for name in names)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{NAME}: expected a new --out, or one with these {len(names)} classes, got others in "
            f"{path}; numbered classes of both halves are known where both are packed at once"
        )
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def _write_shards(plan: Plan, shards: Sequence[int], workers: int) -> Iterator[None]:
    """Writes shards, one after the other or in several processes; yields after each."""
    if workers == 1:
        _start(plan)
        yield from map(_write_shard, shards)
        return
    context = multiprocessing.get_context("spawn")  # a fork may inherit a lock that is held
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(plan,)) as pool:
        try:
            yield from pool.map(_write_shard, shards)
        finally:
            pool.shutdown(cancel_futures=True)  # those under way are finished


def _start(plan: Plan) -> None:
    global _plan
    _plan = plan


def _write_shard(shard: int) -> None:
    def write(file: Path) -> None:
        with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
            for position in _plan.positions(shard):
                index = int(_plan.order[position])
                content, suffix = _encode(_plan.source.read(index), _plan.source.name(index))
                _add(archive, f"{position:09}{suffix}", content)
                _add(archive, f"{position:09}.cls", str(_plan.source.labels[index]).encode())

    write_atomically(_plan.path(shard), write)


def _encode(image: bytes | np.ndarray, name: str) -> tuple[bytes, str]:
    """Returns the content and the suffix of an image's member; pixels become a PNG file."""
    if isinstance(image, bytes):
        suffix = Path(name).suffix.lower()
        return image, {".jpeg": ".jpg", ".jpe": ".jpg"}.get(suffix, suffix)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue(), ".png"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a member without time and owner: the same images give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Packs a data set into shards.")
    parser.add_argument("--data-path", required=True, metavar="DIR", help="the data set")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument(
        "--storage",
        choices=("auto", "folder", "list", "zip", "shards"),
        default="auto",
        help="how it is stored",
    )
    parser.add_argument(
        "--halves", nargs="+", choices=("train", "val"), default=["train", "val"], help="which"
    )
    parser.add_argument("--shard-size", type=int, default=5000, metavar="N", help="images a shard")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the shuffling")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="processes")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _make(args), resumes=True)


def _make(args: argparse.Namespace) -> None:
    for flag in ("shard_size", "workers"):
        if getattr(args, flag) < 1:
            name = flag.replace("_", "-")
            raise ValueError(f"{NAME}: expected --{name} >= 1, got {getattr(args, flag)}")
    config = get_default_config()
    config.DATA.DATA_PATH = args.data_path
    config.DATA.STORAGE = args.storage
    config.DATA.DATASET = "folder"
    if len(set(args.halves)) == 2:
        sets = open_storage(config)
        sources, names = {"train": sets.train, "val": sets.test}, sets.class_names
    else:
        source = open_half(config, args.halves[0])
        sources, names = {args.halves[0]: source}, source.class_names
    args.out.mkdir(parents=True, exist_ok=True)
    _write_classes(args.out / "classes.txt", names)
    for half, source in sources.items():
        count = make_shards(
            source,
            half,
            args.out,
            shard_size=args.shard_size,
            seed=args.seed,
            workers=args.workers,
        )
        shards = math.ceil(len(source) / args.shard_size)
        print(f"{args.out}: {len(source):,} {half} images in {shards} shards ({count} written now)")


if __name__ == "__main__":
    sys.exit(main())
