"""Trains a classifier.

    torchrun --nproc_per_node 2 classification/train.py --cfg classification/configs/NAME.yaml

OUTPUT/NAME then holds summary.json (the scores), metrics.csv and curves.png (a row or a point an
epoch), model.safetensors (for ``internimage predict --checkpoint``), ckpt_epoch_*.pth (to go on
from), log_rank*.txt and config.yaml (all settings). With one seed and one number of ranks the
weights of two runs on a CPU are equal bit by bit, interrupted or not.

The same command again goes on where the run broke off (TRAIN.AUTO_RESUME). SIGTERM and SIGUSR1 save
the state and end the run with 128 plus the signal's number; exit code 0 says that it is complete.
``--overwrite`` trains anew. A run goes on with the settings that it was saved with, but for those
that ``classification/runs/checkpoint.py`` lists in MAY_CHANGE.

A user's mistake ends a run with one line and exit code 2; torchrun shows the line and ends with 1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.launch.startup import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c("train.py")

from classification.distributed import start_ranks
from classification.evaluate import evaluate_weights
from classification.launch.arguments import parse_arguments
from classification.launch.command_line import run_script
from classification.runs.run import prepare
from classification.throughput import measure
from internimage.processes import leave

NAME = "train.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    checkpoints: list[Path] = []  # the run itself must not live on: see run_script
    is_prepared = is_automatic = False

    def train() -> None:
        nonlocal checkpoints, is_prepared, is_automatic
        config, overwrite = parse_arguments(arguments)
        ranks = start_ranks()
        if config.EVAL_MODE:
            evaluate_weights(config, ranks)
            return
        if config.THROUGHPUT_MODE:
            measure(config, ranks)
            return
        run = prepare(config, ranks, overwrite=overwrite)
        checkpoints, is_automatic = run.history.checkpoints, config.TRAIN.AUTO_RESUME
        is_prepared = True
        run.train()
        run.close()

    def hint() -> str:
        if not is_prepared:
            return ""
        if not checkpoints:
            return "; nothing has been saved yet"
        how = "the same command goes on from it" if is_automatic else "go on with --resume and it"
        return f"; {checkpoints[-1]} is kept, {how}"

    return run_script(NAME, train, hint=hint)


if __name__ == "__main__":
    leave(main())
