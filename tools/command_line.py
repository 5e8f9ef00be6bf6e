"""What the tools that look at a model share: its flags, its images, errors as one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from internimage import Preprocessing
from internimage.predict import Predictor, build_predictor

BAD_INPUT = 2


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose a model and its weights, named as in ``internimage predict``."""
    parser.add_argument("--model", help="a released model or a size (internimage list)")
    parser.add_argument("--checkpoint", type=Path, help="weights; a released --model needs none")
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="no weights: the picture of an untrained model",
    )
    parser.add_argument("--image-size", type=int, help="side of the square image, pixels")


def predictor_of(arguments: argparse.Namespace) -> Predictor:
    """Returns the model that the flags of ``add_model_arguments`` choose.

    Raises:
        OSError: The checkpoint does not exist or cannot be downloaded.
        ValueError: The flags do not name a model with its weights.
    """
    return build_predictor(
        arguments.model,
        arguments.checkpoint,
        random_weights=arguments.random_weights,
        image_size=arguments.image_size,
    )


def to_picture(x: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Returns a normalised image (3, H, W) as what was seen: (H, W, 3), 0-255."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    pixels = (x.permute(1, 2, 0) * std + mean) * 255
    return pixels.round().clip(0, 255).byte().numpy()


def run_tool(name: str, tool: Callable[[], None]) -> int:
    """Runs a tool and returns its exit code; bad input is one line and 2."""
    try:
        tool()
    except (ValueError, OSError) as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    return 0
