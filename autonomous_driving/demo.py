"""Draws what a driving model says of its test set: cameras and maps, beside the truth.

    python autonomous_driving/demo.py CONFIG CHECKPOINT --out pictures --limit 10
    python autonomous_driving/demo.py CONFIG CHECKPOINT --out pictures --animate

A frame is ``--out``/SCENE_TOKEN.png, and ``--animate`` adds SCENE.gif (``--animate png``: all
colours, SCENE.animated.png). Without CHECKPOINT the truth alone is drawn, in the cameras as well:
a look at the data before the training. The file of every picture is printed.

A user's mistake ends the script with one line and exit code 2.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    # Until the script works: what follows takes seconds to import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from internimage.openmmlab_needed import openmmlab_needed
from internimage.processes import leave

NAME = "demo.py"
CONFIGS = Path(__file__).parent / "configs"

with openmmlab_needed(NAME):
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from torch import Tensor

    from internimage.cli_arguments import positive, rate
    from internimage.cli_commands import check_device
    from internimage.integrations.openmmlab.driving.pictures.writer import BoardWriter
    from internimage.integrations.openmmlab.driving.sample import DrivingSample
    from internimage.integrations.openmmlab.scripts.arguments import ScriptParser
    from internimage.integrations.openmmlab.scripts.checkpoints import (
        load_all_weights,
        read_checkpoint,
    )
    from internimage.integrations.openmmlab.scripts.command_line import run_script
    from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
    from internimage.integrations.openmmlab.scripts.data_checks import TEST, check_data
    from internimage.integrations.openmmlab.scripts.model_building import build_model
    from internimage.integrations.openmmlab.scripts.runner import NamingRunner


def build_parser() -> ScriptParser:
    """Describes the command line."""
    parser = ScriptParser(NAME, "Draws what a driving model says of its test set.")
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT", help="weights; without, the truth is drawn"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument("--limit", type=positive, metavar="K", help="only the first K frames")
    parser.add_argument(
        "--animate",
        nargs="?",
        const="gif",
        choices=("gif", "png"),
        help="an animation of each scene as well (default kind: gif)",
    )
    parser.add_argument(
        "--score-thr", type=rate, default=0.3, help="least score drawn, 0-1 (default 0.3)"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the model runs (default: the GPU if there is one)",
    )
    return parser


def predict(config: Config, args: argparse.Namespace, model: Any) -> Iterator[tuple[Tensor, Any]]:
    """Yields the images (T, N, 3, H, W) of each frame in order, and its sample.

    Raises:
        ValueError: the data set is empty, or a frame has neither truth nor a checkpoint.
    """
    loader = NamingRunner.build_dataloader(config.test_dataloader)
    if args.checkpoint is None:
        _require_truth(loader.dataset, args.limit)
    model.to(args.device).eval()
    for batch in loader:
        samples: list[DrivingSample] = batch["data_samples"]
        if args.checkpoint is not None:
            with torch.inference_mode():
                samples = model.test_step(batch)
        yield from zip(batch["inputs"], samples, strict=True)


def _require_truth(dataset: Any, limit: int | None) -> None:
    """Refuses a set that lacks the truth of a frame to be drawn, before the first one is."""
    bare = set(dataset.metainfo.get("without_truth", ()))
    for index in range(len(dataset) if limit is None else min(limit, len(dataset))):
        token = dataset.get_data_info(index)["token"]
        if token in bare:
            raise ValueError(
                f"expected CHECKPOINT, or the truth of all frames, got none of frame {token}"
            )


def draw(args: argparse.Namespace) -> None:
    """Draws the frames and prints the names of the files.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: there is no such device, the checkpoint is not of this model, or there is
            nothing to draw.
    """
    check_device(args.device)
    config = read_config(args.config, args.cfg_options, configs=CONFIGS)
    check_task(config, CONFIGS)
    check_data(config, TEST)
    # Before anything is built: the names of mmdet's parts are looked up in its scope.
    init_default_scope(config.get("default_scope", "mmdet"))
    # Without a checkpoint it is there for the range of its view alone.
    model = build_model(config.model)
    if args.checkpoint is not None:
        load_all_weights(model, read_checkpoint(args.checkpoint), args.checkpoint)
    writer = BoardWriter(args.out, model.view.grid.range, score_threshold=args.score_thr)
    # Without --limit islice takes all.
    for inputs, sample in islice(predict(config, args, model), args.limit):
        print(writer.add(inputs, sample), flush=True)
    for path in writer.animate(args.animate) if args.animate else ():
        print(path, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return run_script(NAME, lambda: draw(build_parser().parse_all(arguments)))


if __name__ == "__main__":
    leave(main())
