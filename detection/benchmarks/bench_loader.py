r"""Images a second and core of the COCO pipelines, and where their time goes.

    .venv/bin/python detection/benchmarks/bench_loader.py

The pipelines are those of the configs, run by mmdet's own data set in this process on one core:
what one worker of a loader does. The images are made: 640x480 JPEGs of quality 90 with the spectrum
of photographs, seven objects each, outlines of 32 points (COCO has 7.3 objects an image). Times are
CPU time, medians over the rounds.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import mmcv
import mmdet
import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from tools.benchmarks.turns import processor

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "_base_" / "datasets"
WIDTH, HEIGHT, QUALITY = 640, 480, 90
NUM_OBJECTS, NUM_POINTS = 7, 32
NUM_CLASSES = 80
# Title -> data set of the configs, and which of its loaders.
PIPELINES = {
    "boxes and masks, 1333x800 (1x)": ("coco_instance", "train_dataloader"),
    "boxes and masks, many scales and crops (3x)": ("coco_instance_crop", "train_dataloader"),
    "boxes, many scales and crops (DINO)": ("coco_detection", "train_dataloader"),
    "test, 1333x800": ("coco_detection", "val_dataloader"),
}


def photo(seed: int) -> np.ndarray:
    """Returns noise of all scales, the coarse ones stronger, and grey more than coloured."""
    generator = np.random.default_rng(seed)
    total = np.zeros((HEIGHT, WIDTH, 3), dtype=np.float32)
    for side in (1, 2, 4, 8, 16, 32, 64, 128):
        shape = (HEIGHT // side + 2, WIDTH // side + 2, 3)
        noise = generator.normal(size=shape).astype(np.float32)
        noise = noise.mean(axis=-1, keepdims=True) + 0.4 * noise
        noise = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        total += noise * side**0.35
    total = (total - total.mean()) / total.std() * 55 + 120
    return total.clip(0, 255).astype(np.uint8)


def outline(generator: np.random.Generator) -> tuple[list[float], list[float]]:
    """Returns a wobbly ellipse as COCO's polygon, and its box (left, top, width, height)."""
    radius = generator.uniform((20, 20), (WIDTH / 5, HEIGHT / 5))
    centre = generator.uniform(radius, np.array((WIDTH, HEIGHT)) - radius)
    angle = np.linspace(0, 2 * np.pi, NUM_POINTS, endpoint=False)[:, None]
    ring = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    points = centre + ring * radius * generator.uniform(0.7, 1.0, size=(NUM_POINTS, 1))
    low, high = points.min(axis=0), points.max(axis=0)
    return points.ravel().tolist(), [*low.tolist(), *(high - low).tolist()]


def write_images(root: Path, count: int) -> float:
    """Writes images and their annotations; returns the mean size of a file in kB."""
    (root / "annotations").mkdir()
    generator = np.random.default_rng(0)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    names = Config.fromfile(CONFIGS / "coco_detection.py").train_dataloader.dataset.type
    classes = DATASETS.get(names).METAINFO["classes"]
    content["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    sizes = []
    for half in ("train2017", "val2017"):
        (root / half).mkdir()
    for index in range(count):
        name = f"{index:06}.jpg"
        path = root / "train2017" / name
        cv2.imwrite(str(path), photo(index), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        (root / "val2017" / name).write_bytes(path.read_bytes())
        sizes.append(path.stat().st_size / 1000)
        content["images"].append(
            {"id": index + 1, "file_name": name, "width": WIDTH, "height": HEIGHT}
        )
        for _ in range(NUM_OBJECTS):
            polygon, box = outline(generator)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": index + 1,
                    "category_id": int(generator.integers(NUM_CLASSES)) + 1,
                    "bbox": box,
                    "area": box[2] * box[3] * 0.6,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    for half in ("train", "val"):
        file = root / "annotations" / f"instances_{half}2017.json"
        file.write_text(json.dumps(content), encoding="utf-8")
    return statistics.mean(sizes)


def build_data_set(root: Path, name: str, loader: str) -> Any:
    """Builds the data set of a config on the made images."""
    data_set = Config.fromfile(CONFIGS / f"{name}.py")[loader].dataset
    data_set.data_root = f"{root}/"
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does
        return DATASETS.build(data_set)


def measure(data_set: Any, rounds: int) -> dict[str, float]:
    """Returns the CPU milliseconds an image of each transform, medians over the rounds."""
    steps = data_set.pipeline.transforms
    taken: dict[str, list[float]] = {
        f"{i}. {type(step).__name__}": [] for i, step in enumerate(steps)
    }
    for index in range(rounds + 1):
        sums = dict.fromkeys(taken, 0.0)
        for item in range(len(data_set)):
            data = data_set.get_data_info(item)
            for name, step in zip(taken, steps, strict=True):
                start = time.process_time()
                data = step(data)
                sums[name] += time.process_time() - start
        if index:  # the first one warmed up
            for name, seconds in sums.items():
                taken[name].append(1e3 * seconds / len(data_set))
    return {name: statistics.median(values) for name, values in taken.items()}


def use_one_core() -> None:
    """Keeps this process on one core from now on."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measures COCO's pipelines on one core.")
    parser.add_argument("--images", type=int, default=48, help="images of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each pipeline")
    args = parser.parse_args(arguments)
    use_one_core()
    init_default_scope("mmdet")
    with tempfile.TemporaryDirectory() as folder:
        size = write_images(Path(folder), args.images)
        print(
            f"{processor()}, one core; Python {platform.python_version()}, "
            f"PyTorch {torch.__version__}, OpenCV {cv2.__version__}, "
            f"mmcv {mmcv.__version__}, mmdet {mmdet.__version__}; {args.images} "
            f"JPEGs of {WIDTH}x{HEIGHT}, {size:.0f} kB each, {NUM_OBJECTS} objects an image, "
            f"{args.rounds} rounds, CPU time\n"
        )
        print(
            "| pipeline | images/s a core | ms an image | its transforms, ms |\n|---|---:|---:|---|"
        )
        for title, (name, loader) in PIPELINES.items():
            np.random.seed(0)
            steps = measure(build_data_set(Path(folder), name, loader), args.rounds)
            total = sum(steps.values())
            parts = ", ".join(f"{step.partition(' ')[2]} {ms:.1f}" for step, ms in steps.items())
            print(f"| {title} | {1e3 / total:.1f} | {total:.1f} | {parts} |")


if __name__ == "__main__":
    main()
