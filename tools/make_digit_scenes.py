"""Composes scenes of handwritten digits, with boxes, masks and semantic maps: data to learn from.

python tools/make_digit_scenes.py --out data/digit_scenes

The digits are the scans of 8x8 pixels that scikit-learn brings along, enlarged, turned, coloured
and laid on textures, where they may cover each other in part. No scan is in both halves.

    DIR/train/*.png  DIR/val/*.png          the scenes
    DIR/annotations/train.json  val.json    COCO boxes and masks, of what is visible
    DIR/semantic/train/*.png  val/*.png     0 for background, 1-10 for the classes

The same arguments give the same files, byte for byte, and a scene does not depend on how many there
are. A folder that was left half does not appear under its name.

Shape letters: H W the scene's height and width, h w those of a digit in it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.data.digits import Digits
from tools.coco_files import categories, whole_folder, write_json
from tools.command_line import progress, run_tool

NAME = "make_digit_scenes"
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Words, since "3" beside category id 4 would mislead."""
FOLDERS = ("train", "val", "annotations", "semantic")

MIN_SIZE = 48  # pixels; below, the smallest digit would have as few pixels as its scan
NUM_DIGITS = (3, 5)  # the least and the most a scene
SIDE = (0.28, 0.48)  # of a digit, as a share of the scene's
MAX_TURN = 12  # degrees
PAPER = (20, 130)  # its colour, 0-255: dark, as the ink is brighter
MIN_CONTRAST = 65  # of the ink to the paper around it, in steps of luma 0-255
MAX_INK = 225  # nearly white will do on whatever paper
MIN_VISIBLE = 0.93  # share of a digit that the others must leave free
ATTEMPTS = 40  # to place a digit before the scene is full
INK_LEVEL = 135  # of a scan's brightness 0-255, above which a pixel is the digit's
INK_SOFTNESS = 110  # steps of brightness from paper to full ink: the edge is a ramp, as in a scan
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass
class Digit:
    """A digit that lies in a scene.

    Args:
        label: Its class, 0-9.
        mask: (H, W), bool; its visible pixels.
        area: How many they were before anything covered them.
    """

    label: int
    mask: np.ndarray
    area: int


def make_scene(
    digits: Digits, generator: np.random.Generator, *, size: int
) -> tuple[np.ndarray, list[Digit]]:
    """Composes a scene.

    Args:
        digits: The scans to choose from.
        generator: Decides everything.
        size: Side of the square scene, pixels.

    Returns:
        The picture (H, W, 3), 0-255, and its digits, those in front last.
    """
    canvas = make_background(generator, size=size)
    placed: list[Digit] = []
    for _ in range(int(generator.integers(NUM_DIGITS[0], NUM_DIGITS[1] + 1))):
        for _ in range(ATTEMPTS):
            index = int(generator.integers(len(digits.pixels)))
            ink = enlarge(digits.pixels[index, ..., 0], generator, size=size)
            h, w = ink.shape
            if h > size or w > size:
                continue
            top = int(generator.integers(size - h + 1))
            left = int(generator.integers(size - w + 1))
            mask = np.zeros((size, size), dtype=bool)
            mask[top : top + h, left : left + w] = ink >= 0.5
            if all((each.mask & ~mask).sum() >= MIN_VISIBLE * each.area for each in placed):
                break
        else:
            break
        region = canvas[top : top + h, left : left + w]  # a view
        paper = float((region.mean(axis=(0, 1)) * LUMA).sum())
        colour = choose_ink(generator, paper=paper)
        region += ink[..., None] * (colour - region)
        for each in placed:
            each.mask &= ~mask
        placed.append(Digit(int(digits.labels[index]), mask, int(mask.sum())))
    canvas += generator.normal(0, generator.uniform(1, 6), canvas.shape)
    return canvas.clip(0, 255).round().astype(np.uint8), placed


def make_background(generator: np.random.Generator, *, size: int) -> np.ndarray:
    """Returns a texture (H, W, 3), 0-255: clouds of three grains, stripes, a few strokes."""
    canvas = np.zeros((size, size, 3)) + generator.uniform(*PAPER, 3)
    for cells in (3, 8, 24):
        grain = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        clouds = Image.fromarray(grain).resize((size, size), Image.Resampling.BICUBIC)
        canvas += generator.uniform(0.05, 0.25) * (np.asarray(clouds, dtype=float) - 127.5)
    rows, columns = np.mgrid[:size, :size] / size
    angle, waves = generator.uniform(0, np.pi), generator.uniform(2, 20)
    along = np.cos(angle) * rows + np.sin(angle) * columns
    canvas += (generator.uniform(0, 14) * np.sin(2 * np.pi * waves * along))[..., None]
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(generator.integers(5))):  # strokes that are no digits
        ends = [int(x) for x in generator.integers(-size // 4, size + size // 4, 4)]
        colour = tuple(int(x) for x in generator.integers(*PAPER, 3))
        draw.line(ends, fill=colour, width=int(generator.integers(1, max(2, size // 40) + 1)))
    return np.asarray(picture, dtype=float)


def enlarge(scan: np.ndarray, generator: np.random.Generator, *, size: int) -> np.ndarray:
    """Returns how much ink a digit has at each pixel, (h, w), 0-1; its margins are cut off.

    Args:
        scan: (8, 8), 0 for paper to 255.
        generator: Chooses side, proportions and turn.
        size: Side of the scene, pixels.
    """
    height = generator.uniform(*SIDE) * size * 10 / 8  # the paper around the scan counts, too
    width = height * generator.uniform(0.85, 1.15)
    smooth = Image.fromarray(np.pad(scan, 1)).resize(
        (round(width), round(height)), Image.Resampling.BICUBIC
    )
    turn = generator.uniform(-MAX_TURN, MAX_TURN)
    turned = smooth.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    ink = ((np.asarray(turned, dtype=float) - INK_LEVEL) / INK_SOFTNESS + 0.5).clip(0, 1)
    rows, columns = extents(ink > 0)
    return ink[rows, columns]


def choose_ink(generator: np.random.Generator, *, paper: float) -> np.ndarray:
    """Returns a colour (3,), 0-255, that is brighter than paper of a mean luma of 0-255."""
    while True:
        colour = generator.uniform(0, 255, 3)
        if float((colour * LUMA).sum()) >= min(paper + MIN_CONTRAST, MAX_INK):
            return colour


def extents(mask: np.ndarray) -> tuple[slice, slice]:
    """Returns the rows and the columns that hold all True of (H, W), bool."""
    rows, columns = np.nonzero(mask)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def annotate(digit: Digit) -> dict[str, Any]:
    """Returns what COCO says of an object: class, box, area and mask, without ids."""
    rows, columns = extents(digit.mask)
    # COCO's run lengths go down the columns and begin with zeros. No polygon has a zero's hole.
    pixels = digit.mask.ravel(order="F")
    (changes,) = np.nonzero(np.diff(pixels, prepend=False))
    counts = np.diff(changes, prepend=0, append=pixels.size)
    return {
        "category_id": digit.label + 1,
        "bbox": [
            int(columns.start),
            int(rows.start),
            int(columns.stop - columns.start),
            int(rows.stop - rows.start),
        ],
        "area": int(digit.mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(digit.mask.shape), "counts": counts.tolist()},
    }


def write_half(folder: Path, half: str, *, count: int, size: int, seed: int) -> int:
    """Writes the scenes and the annotations of a half; returns the number of digits in them.

    Args:
        folder: Where ``train``, ``annotations`` and so on are.
        half: ``train`` or ``val``.
        count: How many scenes.
        size: Side of a scene, pixels.
        seed: Another seed is another data set.
    """
    digits = Digits(train=half == "train")
    semantic = folder / "semantic" / half
    for path in (folder / half, semantic):
        path.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with progress(f"{half} scenes", count) as advance:
        for index in range(count):
            generator = np.random.default_rng([seed, FOLDERS.index(half), index])
            picture, placed = make_scene(digits, generator, size=size)
            name = f"{index:05}.png"
            Image.fromarray(picture).save(folder / half / name)
            labels = np.zeros(picture.shape[:2], dtype=np.uint8)
            image = {"id": index + 1, "file_name": name, "width": size, "height": size}
            images.append(image)
            for digit in placed:
                labels[digit.mask] = digit.label + 1
                ids = {"id": len(annotations) + 1, "image_id": image["id"]}
                annotations.append(ids | annotate(digit))
            Image.fromarray(labels).save(semantic / name)
            advance(1)
    content = {"images": images, "annotations": annotations, "categories": categories(CLASSES)}
    write_json(folder / "annotations" / f"{half}.json", content)
    return len(annotations)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Composes scenes of handwritten digits with COCO boxes and masks."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--train", type=int, default=1000, metavar="N", help="scenes to learn from")
    parser.add_argument("--val", type=int, default=100, metavar="N", help="scenes to measure with")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="side, pixels")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another is another set")
    parser.add_argument("--overwrite", action="store_true", help="replace scenes that are there")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _make(args))


def _make(args: argparse.Namespace) -> None:
    for flag, value, least in (
        ("--train", args.train, 1),
        ("--val", args.val, 1),
        ("--size", args.size, MIN_SIZE),
        ("--seed", args.seed, 0),
    ):
        if value < least:
            raise ValueError(f"{NAME}: expected {flag} >= {least}, got {value}")
    lines = []
    with whole_folder(args.out, tool=NAME, overwrite=args.overwrite, content=FOLDERS) as folder:
        for half, count in (("train", args.train), ("val", args.val)):
            num_digits = write_half(folder, half, count=count, size=args.size, seed=args.seed)
            lines.append(f"{args.out / half}: {count:,} scenes with {num_digits:,} digits")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
