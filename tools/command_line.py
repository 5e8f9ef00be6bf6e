"""What the tools share: errors as one line, a progress bar; of a model its flags and its images."""

import argparse
import contextlib
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from torch import Tensor

from internimage import Preprocessing
from internimage.predict import Predictor, build_predictor
from internimage.script import BAD_INPUT

STOPPED = 130  # as shells have it: 128 + SIGINT


def run_tool(name: str, tool: Callable[[], None], *, resumes: bool = False) -> int:
    """Runs a tool; a mistake, a full disk or Ctrl-C is one line. Returns the exit code.

    Args:
        name: The tool's name.
        tool: All of its work.
        resumes: Whether the same command, given again, goes on where this one ended.
    """
    hint = "; the same command goes on from here" if resumes else ""
    try:
        tool()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = str(error).removeprefix(f"{name}: ")
        _say(name, f"error: {said}{hint if full else ''}")
    except ValueError as error:
        # Functions of the tool begin their errors with its name, which the line begins with.
        _say(name, f"error: {str(error).removeprefix(f'{name}: ')}")
    except KeyboardInterrupt:
        _say(name, f"stopped{hint}")
        return STOPPED
    else:
        return 0
    return BAD_INPUT


@contextlib.contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Shows a bar while the block runs; where the output is no terminal, nothing.

    Args:
        description: What is going on.
        total: How much there is to do; None where nobody knows.

    Yields:
        A function to call with the amount done since the last call.
    """
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)


def _say(name: str, text: str) -> None:
    print(f"{name}: {' '.join(text.split())}", file=sys.stderr)


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

        def tool() -> None:
            predictor = build_predictor(
                args.model,
                args.checkpoint,
                random_weights=args.random_weights,
                image_size=args.image_size,
            )
            draw(predictor, args)
            print(args.out)

        return run_tool(self.prog, tool)


def to_picture(x: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Returns a normalised image (3, H, W) as what was seen: (H, W, 3), 0-255."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    pixels = (x.permute(1, 2, 0) * std + mean) * 255
    return pixels.round().clip(0, 255).byte().numpy()
