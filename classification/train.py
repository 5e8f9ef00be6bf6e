"""Trains a classifier.

    torchrun --nproc_per_node 2 classification/train.py --cfg classification/configs/NAME.yaml

OUTPUT/NAME then holds summary.json (the scores), metrics.csv and curves.png (a row or a point an
epoch), model.safetensors (for ``internimage predict --checkpoint``), ckpt_epoch_*.pth (for
``--resume``) and config.yaml (all settings). With one seed and one number of ranks the weights of
two runs on a CPU are equal bit by bit.

A user's mistake ends a run with one line and exit code 2; torchrun shows the line and ends with 1.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from yacs.config import CfgNode

from classification.config import get_config, nearest_hint
from classification.distributed import (
    StoppedError,
    end_ranks,
    leave,
    raise_on_stop_signals,
    start_ranks,
)
from classification.engine import DivergedError
from classification.run import Run, prepare


class Parser(argparse.ArgumentParser):
    """Raises a mistake in the command line as ValueError."""

    def error(self, message: str) -> NoReturn:
        """Raises.

        Raises:
            ValueError: Always.
        """
        raise ValueError(message)


def parse_config(arguments: Sequence[str] | None = None) -> CfgNode:
    """Returns the settings that the command line describes.

    Raises:
        ValueError: A flag, a file, a key or a value is wrong.
    """
    parser = Parser(
        prog="train.py", description="Trains a classifier under torchrun.", allow_abbrev=False
    )
    parser.add_argument("--cfg", required=True, metavar="YAML", help="the settings")
    parser.add_argument("--output", metavar="DIR", help="the run's folder is DIR/NAME of the YAML")
    parser.add_argument("--batch-size", metavar="N", help="images a rank: DATA.BATCH_SIZE")
    parser.add_argument("--accumulation-steps", metavar="N", help="TRAIN.ACCUMULATION_STEPS")
    parser.add_argument("--use-checkpoint", action="store_true", help="TRAIN.USE_CHECKPOINT")
    parser.add_argument("--save-ckpt-num", metavar="N", help="checkpoints kept: SAVE_CKPT_NUM")
    parser.add_argument("--resume", metavar="PTH", help="go on from a ckpt_epoch_*.pth")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="any other settings"
    )
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        hint = nearest_hint(unknown[0], list(parser._option_string_actions))
        raise ValueError(f"expected known flags, got {' '.join(unknown)}{hint}")
    flags = {
        "OUTPUT": args.output,
        "DATA.BATCH_SIZE": args.batch_size,
        "TRAIN.ACCUMULATION_STEPS": args.accumulation_steps,
        "TRAIN.USE_CHECKPOINT": "True" if args.use_checkpoint else None,
        "SAVE_CKPT_NUM": args.save_ckpt_num,
        "MODEL.RESUME": args.resume,
    }
    options = [text for key, value in flags.items() if value is not None for text in (key, value)]
    return get_config(args.cfg, [*options, *args.opts])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    run = None
    raise_on_stop_signals()
    try:
        try:
            run = prepare(parse_config(arguments), start_ranks())
        except ValueError as error:
            return _fail(error, run)
        try:
            run.train()
        except (DivergedError, OSError) as error:
            return _fail(error, run)
    except StoppedError as stopped:
        _say(f"{stopped}{_resume_hint(run)}")
        return stopped.exit_code
    run = None  # the group must outlive it: see end_ranks
    end_ranks()
    return 0


def _fail(error: Exception, run: Run | None) -> int:
    # torchrun repeats this text as the cause of its own failure, whichever rank was the first.
    get_error_handler().record_exception(error)
    _say(f"error: {error}{_resume_hint(run)}")
    return 2


def _say(text: str) -> None:
    """Prints a line on the first rank: the others make the same mistakes."""
    if os.environ.get("RANK", "0") == "0":
        print(f"train.py: {text}", file=sys.stderr)


def _resume_hint(run: Run | None) -> str:
    saved = run.last_checkpoint if run else None
    return f"; go on with --resume {saved}" if saved else ""


if __name__ == "__main__":
    leave(main())
