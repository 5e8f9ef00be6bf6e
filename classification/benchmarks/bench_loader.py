r"""Images a second and core of the training loader, beside torchvision and timm as they come.

    .venv/bin/python classification/benchmarks/bench_loader.py

The yardstick is a plain torchvision ``ImageFolder`` with timm's ``create_transform`` in a
``DataLoader``: decode, random crop, mirror, policy, tensor, normalise, erase, all for one image
after the other. Ours does the same work in another order, from each storage; ``finish_train`` runs
on the CPU as well, though a run on CUDA does that part there. The images are 500x375 JPEGs of
quality 90 with the spectrum of photographs.

Contenders take turns on one core; a ratio is the median over rounds of the yardstick's CPU time
over ours in the same round.
"""

import argparse
import io
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import PIL
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ColorJitter
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data import Data, build_data
from classification.data.colours import allow_no_bits
from classification.distributed import Ranks

WIDTH, HEIGHT, QUALITY = 500, 375, 90
BATCH_SIZE = 32
POLICIES = {"RandAugment": "rand-m9-mstd0.5-inc1", "crop and mirror": "none"}
STORAGES: dict[str, dict[str, object]] = {
    "folder": {},
    "folder, in memory": {"IMG_ON_MEMORY": True},
    "zip": {"STORAGE": "zip"},
    "shards": {"STORAGE": "shards"},
}


def photo(seed: int) -> Image.Image:
    """Returns noise of all scales, the coarse ones stronger, and grey more than coloured."""
    generator = np.random.default_rng(seed)
    total = np.zeros((HEIGHT, WIDTH, 3), dtype=np.float32)
    for side in (1, 2, 4, 8, 16, 32, 64, 128):
        shape = (HEIGHT // side + 2, WIDTH // side + 2, 3)
        noise = generator.normal(size=shape).astype(np.float32)
        noise = noise.mean(axis=-1, keepdims=True) + 0.4 * noise
        channels = [
            Image.fromarray(noise[..., c]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        total += np.stack([np.asarray(channel) for channel in channels], axis=-1) * side**0.35
    total = (total - total.mean()) / total.std() * 55 + 120
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def write_images(root: Path, count: int) -> float:
    """Writes class folders, zip archives and shards; returns the mean size of a file in kB."""
    sizes = []
    for half, number in (("train", count), ("val", 2)):
        with (
            zipfile.ZipFile(root / f"{half}.zip", "w") as archive,
            tarfile.open(root / f"{half}-0000.tar", "w") as shard,
        ):
            for index in range(number):
                name = f"{'ab'[index % 2]}/{index}.jpg"
                path = root / half / name
                path.parent.mkdir(parents=True, exist_ok=True)
                photo(index).save(path, quality=QUALITY)
                archive.write(path, name)
                shard.add(path, f"{index}.jpg")
                label = tarfile.TarInfo(f"{index}.cls")
                label.size = 1
                shard.addfile(label, io.BytesIO(b"%d" % (index % 2)))
                sizes.append(path.stat().st_size / 1000)
    return statistics.mean(sizes)


def settings(root: Path, policy: str, data: dict[str, object]) -> CfgNode:
    """Returns the settings of ImageNet's recipes, but for where the images are."""
    config = get_default_config()
    config.DATA.update({"DATASET": "folder", "DATA_PATH": str(root), "NUM_WORKERS": 0})
    config.DATA.update({"STORAGE": "folder", "BATCH_SIZE": BATCH_SIZE} | data)
    config.AUG.AUTO_AUGMENT = policy
    if policy == "none":
        config.AUG.COLOR_JITTER = 0.0
    return config


def our_pass(config: CfgNode, *, finish: bool) -> Callable[[int], int]:
    """Returns a function that loads an epoch and returns how many images that were."""
    data: Data = build_data(config, Ranks(0, 1, torch.device("cpu")))

    def load(epoch: int) -> int:
        count = 0
        for batch in data.train_loader.batches(epoch):
            images = data.finish_train(batch.images) if finish else batch.images
            count += len(images)
        return count

    return load


def their_pass(root: Path, config: CfgNode) -> Callable[[int], int]:
    """Returns the same for torchvision and timm."""
    aug = config.AUG
    transform = create_transform(
        config.DATA.IMG_SIZE,
        is_training=True,
        scale=aug.CROP_SCALE,
        hflip=aug.HFLIP,
        color_jitter=aug.COLOR_JITTER,
        auto_augment=None if aug.AUTO_AUGMENT == "none" else aug.AUTO_AUGMENT,
        interpolation=config.DATA.INTERPOLATION,
        mean=aug.MEAN,
        std=aug.STD,
        re_prob=aug.REPROB,
        re_mode=aug.REMODE,
        re_count=aug.RECOUNT,
    )
    if aug.COLOR_JITTER == 0:  # timm would jitter by nothing, for a third of the time
        transform.transforms = [
            step for step in transform.transforms if not isinstance(step, ColorJitter)
        ]
    for step in transform.transforms:
        allow_no_bits(step)
    folder = ImageFolder(root / "train", transform)
    loader = DataLoader(folder, BATCH_SIZE, shuffle=True, drop_last=True)

    def load(_epoch: int) -> int:
        return sum(len(images) for images, _ in loader)

    return load


def processor() -> str:
    """Returns what the processor calls itself."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def measure(passes: dict[str, Callable[[int], int]], rounds: int) -> dict[str, list[float]]:
    """Returns the CPU seconds an image of each contender in each round, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for epoch in range(rounds + 1):
        for name, load in passes.items():
            start = time.process_time()
            count = load(epoch)
            seconds[name].append((time.process_time() - start) / count)
    return {name: values[1:] for name, values in seconds.items()}  # the first one warmed up


def print_table(root: Path, policy: str, rounds: int) -> None:
    """Prints one table: images a second and core, and the ratio to the yardstick."""
    contenders = {
        f"ours: {name}": our_pass(settings(root, POLICIES[policy], data), finish=True)
        for name, data in STORAGES.items()
    }
    plain = settings(root, POLICIES[policy], {})
    contenders["ours: folder, up to finish_train"] = our_pass(plain, finish=False)
    yardstick = "torchvision + timm"
    seconds = measure({yardstick: their_pass(root, plain)} | contenders, rounds)
    print(f"\n| {policy} | images/s | ratio (median) | lowest | highest |\n|---|---|---|---|---|")
    for name, values in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds[yardstick], values, strict=True)]
        print(
            f"| {name} | {1 / statistics.median(values):.0f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f} | {max(ratios):.2f} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measures the training loader on one core.")
    parser.add_argument("--quick", action="store_true", help="few images, to see that it works")
    quick = parser.parse_args(arguments).quick
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    count, rounds = (BATCH_SIZE, 1) if quick else (8 * BATCH_SIZE, 9)
    with tempfile.TemporaryDirectory() as folder:
        size = write_images(Path(folder), count)
        print(
            f"{processor()}, one core; Python "
            f"{platform.python_version()}, torch {torch.__version__}, torchvision "
            f"{torchvision.__version__}, timm {timm.__version__}, Pillow {PIL.__version__}; "
            f"{count} JPEGs of {WIDTH}x{HEIGHT}, {size:.0f} kB each, batches of {BATCH_SIZE}, "
            f"{rounds} rounds, CPU time"
        )
        for policy in POLICIES:
            print_table(Path(folder), policy, rounds)


if __name__ == "__main__":
    main()
