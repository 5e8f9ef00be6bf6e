"""What the tools that look at a model share: its flags, its images, errors as one line."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from internimage import Preprocessing
from internimage.predict import Predictor, build_predictor

BAD_INPUT = 2


class PictureParser(argparse.ArgumentParser):
    """The flags of a tool that draws what a model does, named as in ``internimage predict``.

    Args:
        name: The tool's name, ``plot_*``; ``*.png`` is what it draws to unless told otherwise.
        description: What it does, a sentence.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=name, description=description)
        self.add_argument("--model", help="a released model or a size (internimage list)")
        self.add_argument("--checkpoint", type=Path, help="weights; a released --model needs none")
        self.add_argument(
            "--random-weights",
            action="store_true",
            help="no weights: the picture of an untrained model",
        )
        self.add_argument("--image-size", type=int, help="side of the square image, pixels")
        default = Path(f"{name.removeprefix('plot_')}.png")
        self.add_argument("--out", type=Path, default=default, help="PNG file")

    def run(
        self,
        arguments: Sequence[str] | None,
        draw: Callable[[Predictor, argparse.Namespace], None],
    ) -> int:
        """Draws and prints the file's name; bad input is one line. Returns the exit code.

        Args:
            arguments: The command line; None is the process's own.
            draw: Draws to ``out`` of the flags what the model that they choose does.
        """
        args = self.parse_args(arguments)
        try:
            predictor = build_predictor(
                args.model,
                args.checkpoint,
                random_weights=args.random_weights,
                image_size=args.image_size,
            )
            draw(predictor, args)
        except (ValueError, OSError) as error:
            print(f"{self.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
            return BAD_INPUT
        print(args.out)
        return 0


def to_picture(x: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Returns a normalised image (3, H, W) as what was seen: (H, W, 3), 0-255."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    pixels = (x.permute(1, 2, 0) * std + mean) * 255
    return pixels.round().clip(0, 255).byte().numpy()
