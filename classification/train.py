"""Trains a classifier.

    torchrun --nproc_per_node 2 classification/train.py --cfg classification/configs/NAME.yaml

OUTPUT/NAME then holds summary.json (the scores), metrics.csv and curves.png (a row or a point an
epoch), model.safetensors (for ``internimage predict --checkpoint``), ckpt_epoch_*.pth (for
``--resume``) and config.yaml (all settings). With one seed and one number of ranks the weights of
two runs on a CPU are equal bit by bit.

A folder that holds a run takes no second one: ``--resume`` one of its checkpoints, choose another
``--output``, or remove its files with ``--overwrite``. A run goes on with the settings and the
number of ranks that it was saved with, but for the settings that ``classification/checkpoint.py``
lists in MAY_CHANGE.

A user's mistake ends a run with one line and exit code 2; torchrun shows the line and ends with 1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.startup import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c("train.py")

from yacs.config import CfgNode

from classification.command_line import Parser, run_script
from classification.config import get_config
from classification.distributed import leave, start_ranks
from classification.run import prepare

NAME = "train.py"


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[CfgNode, bool]:
    """Returns the settings that the command line describes, and whether it says ``--overwrite``.

    Raises:
        ValueError: A flag, a file, a key or a value is wrong.
    """
    parser = Parser(NAME, "Trains a classifier under torchrun.")
    parser.add_argument("--output", metavar="DIR", help="the run's folder is DIR/NAME of the YAML")
    parser.add_argument("--accumulation-steps", metavar="N", help="TRAIN.ACCUMULATION_STEPS")
    parser.add_argument("--use-checkpoint", action="store_true", help="TRAIN.USE_CHECKPOINT")
    parser.add_argument("--save-ckpt-num", metavar="N", help="checkpoints kept: SAVE_CKPT_NUM")
    parser.add_argument("--resume", metavar="PTH", help="go on from a ckpt_epoch_*.pth")
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the files of a run in the folder"
    )
    args = parser.parse_known(arguments)
    flags = {
        "OUTPUT": args.output,
        "DATA.BATCH_SIZE": args.batch_size,
        "TRAIN.ACCUMULATION_STEPS": args.accumulation_steps,
        "TRAIN.USE_CHECKPOINT": "True" if args.use_checkpoint else None,
        "SAVE_CKPT_NUM": args.save_ckpt_num,
        "MODEL.RESUME": args.resume,
    }
    options = [text for key, value in flags.items() if value is not None for text in (key, value)]
    return get_config(args.cfg, [*options, *args.opts]), args.overwrite


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    checkpoints: list[Path] = []  # the run itself must not live on: see run_script
    resume = ""

    def train() -> None:
        nonlocal checkpoints, resume
        config, overwrite = parse_arguments(arguments)
        run = prepare(config, start_ranks(), overwrite=overwrite)
        checkpoints, resume = run.checkpoints, config.MODEL.RESUME
        run.train()

    def hint() -> str:
        last = checkpoints[-1] if checkpoints else resume
        return f"; the last good checkpoint is kept, go on with --resume {last}" if last else ""

    return run_script(NAME, train, hint=hint)


if __name__ == "__main__":
    leave(main())
