"""Draws images in a grid, each with its predicted class; mistakes have a frame and a cross.

python tools/plot_predictions.py photos/*.jpg --model internimage_t_1k_224 --out predictions.png
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from matplotlib.figure import Figure

from internimage.predict import Predictor
from tools.command_line import PictureParser, to_picture

WRONG = "#D55E00"  # a colour-blind reader has the frame and the words as well
SHOWN_LETTERS = 22  # of a class name


class Tile(NamedTuple):
    """One image of the grid.

    Args:
        picture: (H, W, 3) 0-255.
        predicted: The predicted class.
        score: Its probability, 0-1.
        truth: The right class, None where it is not known.
    """

    picture: np.ndarray
    predicted: str
    score: float
    truth: str | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the right class is known to be another."""
        return self.truth is not None and self.truth != self.predicted


def draw_predictions(path: Path, tiles: Sequence[Tile], *, title: str, columns: int = 10) -> None:
    """Draws the tiles row by row.

    Args:
        path: The PNG file to write.
        tiles: The images, the first at the top left.
        title: Text on top.
        columns: Images a row.

    Raises:
        ValueError: There is no tile.
    """
    if not tiles:
        raise ValueError("draw_predictions: expected images >= 1, got 0")
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(max(1.25 * columns, 6), 1.5 * rows + 0.7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in axes[len(tiles) :]:
        panel.set_axis_off()
    for panel, tile in zip(axes, tiles, strict=False):
        panel.imshow(tile.picture, interpolation="nearest")
        panel.set_xticks([])
        panel.set_yticks([])
        text = f"{tile.predicted[:SHOWN_LETTERS]}  {100 * tile.score:.0f} %"
        if tile.is_wrong:
            panel.set_title(f"✗ {text}\nis {tile.truth}", fontsize=9, color=WRONG, weight="bold")
        else:
            panel.set_title(text, fontsize=9)
        for spine in panel.spines.values():
            spine.set(color=WRONG if tile.is_wrong else "#bbbbbb", linewidth=3 * tile.is_wrong + 1)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = PictureParser("plot_predictions", "Draws images with their predicted classes.")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")

    def draw(predictor: Predictor, args: argparse.Namespace) -> None:
        tiles = []
        for path in args.images:
            x = predictor.prepare(path)
            label = predictor.classify(x, topk=1)[0][0]
            tiles.append(
                Tile(
                    to_picture(x[0], predictor.preprocessing),
                    label.name or str(label.index),
                    label.score,
                )
            )
        title = f"Predictions of {predictor.model_name}"
        draw_predictions(args.out, tiles, title=title, columns=5)

    return parser.run(arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
