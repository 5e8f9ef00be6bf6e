"""The first result: trains a small InternImage on handwritten digits and shows what it learned.

    make demo        (or: python tools/demo.py)

Trains internimage_n with torchrun on two ranks on scikit-learn's 1,437 scans, tests it on 360
others, draws four pictures and classifies a PNG file from the command line. It always trains anew:
the accuracy that it prints is of this machine, now. All files go to runs/demo/.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.launch.startup import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c("demo")

import torch
from PIL import Image

from classification.data.digits import Digits
from classification.runs.records import write_json
from internimage.image import preprocess
from internimage.predict import Predictor, build_predictor
from tools.command_line import to_picture
from tools.plot_predictions import Tile, draw_predictions
from tools.plot_receptive_field import draw_receptive_fields, stage_fields
from tools.plot_sampling_points import draw_sampling_points, find_sampling_points

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "classification" / "train.py"
CONFIG = ROOT / "classification" / "configs" / "digits" / "internimage_n_digits_32.yaml"
NUM_RANKS = 2
NUM_TILES = 50  # test images in the picture of the predictions
FIELD_BATCH = 60  # images a backward pass
RELEASED_MODEL = "internimage_t_1k_224"
PICTURES = {
    "curves.png": "loss and accuracy, epoch by epoch",
    "predictions.png": "test digits with their predictions, mistakes first",
    "sampling_points.png": "where DCNv3 reads on a test digit, stage by stage",
    "receptive_field.png": "which pixels the middle of each stage depends on",
}
RESULTS = (*PICTURES, "model.safetensors", "digit.png", "metrics.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description="Trains and shows a classifier of digits.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "demo", help="folder to fill")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="settings for train.py"
    )
    args = parser.parse_args(arguments)
    out = args.out.resolve()
    for name in RESULTS:  # those of an earlier demo are not of this one
        (out / name).unlink(missing_ok=True)
    exit_code = train(out, args.opts)
    if exit_code:
        print("demo: the training did not finish; the reason is above", file=sys.stderr)
        return exit_code

    run_folder = out / CONFIG.stem
    checkpoint = out / "model.safetensors"
    shutil.copyfile(run_folder / "model.safetensors", checkpoint)
    shutil.copyfile(run_folder / "curves.png", out / "curves.png")
    predictor = build_predictor(checkpoint=checkpoint)
    tiles = classify_test_digits(predictor)
    draw_pictures(out, predictor, tiles)
    metrics = write_metrics(out, run_folder, tiles)

    digit = out / "digit.png"
    print(f"\nA test digit as a file, {shown(digit)}, classified from the command line:\n")
    internimage = Path(sys.executable).with_name("internimage")
    command = [shown(internimage), "predict", shown(digit), "--checkpoint", shown(checkpoint)]
    command += ["--topk", "3"]
    print(f"$ {shlex.join(command)}", flush=True)
    subprocess.run(command, check=True)

    print(
        f"\nTest accuracy {metrics['top1']:.2f} %: {metrics['num_wrong']} of "
        f"{metrics['num_test_images']} digits wrong, after {metrics['train_seconds']:.0f} seconds "
        "of training.\n\nTo look at:"
    )
    for name, content in PICTURES.items():
        print(f"  {shown(out / name):34} {content}")
    print(
        "\nTo classify a photograph of your own, with released weights (the first call downloads "
        f"them):\n  {shown(internimage)} predict photo.jpg --model {RELEASED_MODEL}"
    )
    return 0


def train(out: Path, options: Sequence[str]) -> int:
    """Trains with torchrun in processes of its own; returns their exit code."""
    command = ["--nproc_per_node", str(NUM_RANKS), shown(TRAIN), "--cfg", shown(CONFIG)]
    command += ["--output", shown(out), "--overwrite", *(["--opts", *options] if options else [])]
    print(f"$ torchrun {shlex.join(command)}", flush=True)
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    environment = {"OMP_NUM_THREADS": str(max(1, (num_cores or 1) // NUM_RANKS)), **os.environ}
    # As a module of this Python: a torchrun elsewhere on the PATH may belong to another one.
    # --standalone takes a free port, so that two demos can run side by side.
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *command],
        env=environment,
    )
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    # Ctrl-C reaches torchrun as well, which then stops its ranks: wait for that.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def classify_test_digits(predictor: Predictor) -> list[Tile]:
    """Returns every test digit with its prediction."""
    digits = Digits(train=False)
    x = torch.stack([preprocess(image, predictor.preprocessing) for image in digits.images])
    labels = predictor.classify(x, topk=1)  # 360 small images are one batch
    return [
        Tile(
            to_picture(x[i], predictor.preprocessing),
            label.name or str(label.index),
            label.score,
            truth=str(truth),
        )
        for i, ((label,), truth) in enumerate(zip(labels, digits.labels, strict=True))
    ]


def draw_pictures(out: Path, predictor: Predictor, tiles: Sequence[Tile]) -> None:
    """Draws all but the curves, and writes one digit as digit.png."""
    num_wrong = sum(tile.is_wrong for tile in tiles)
    hardest = sorted(tiles, key=lambda tile: (not tile.is_wrong, tile.score))[:NUM_TILES]
    draw_predictions(
        out / "predictions.png",
        hardest,
        title=f"Mistakes: {num_wrong} of {len(tiles)} test digits. Shown: {len(hardest)} of them, "
        "the mistakes first, then the least certain answers",
    )
    digit = example_digit(tiles)
    Image.fromarray(digit.picture).save(out / "digit.png")
    points = find_sampling_points(predictor.model, predictor.prepare(out / "digit.png"))
    draw_sampling_points(
        out / "sampling_points.png",
        digit.picture,
        points,
        title="Where the last DCNv3 layer of each stage reads, for the output pixel at the middle",
    )
    images = [preprocess(image, predictor.preprocessing) for image in Digits(train=False).images]
    draw_receptive_fields(
        out / "receptive_field.png",
        stage_fields(predictor.model, torch.stack(images).split(FIELD_BATCH)),
        title="Effective receptive field of the middle pixel of each stage",
        num_images=len(images),
    )


def example_digit(tiles: Sequence[Tile]) -> Tile:
    """Returns a three, one that was recognised if there is any.

    Any digit would do; a three has curves for the sampling points to follow.
    """
    threes = [tile for tile in tiles if tile.truth == "3"]
    return min(threes, key=lambda tile: tile.is_wrong)


def write_metrics(out: Path, run_folder: Path, tiles: Sequence[Tile]) -> dict[str, Any]:
    """Writes metrics.json: the run's summary, and the accuracy of the saved file's weights."""
    summary = json.loads((run_folder / "summary.json").read_text(encoding="utf-8"))
    num_wrong = sum(tile.is_wrong for tile in tiles)
    metrics = {
        **summary,
        "top1": 100 * (len(tiles) - num_wrong) / len(tiles),
        "num_wrong": num_wrong,
        "num_test_images": len(tiles),
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def shown(path: Path) -> str:
    """Returns a path as one would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
