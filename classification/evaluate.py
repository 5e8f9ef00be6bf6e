r"""Evaluates saved weights on the test images of a data set.

    torchrun --nproc_per_node 2 classification/evaluate.py \
        --cfg classification/configs/NAME.yaml --checkpoint OUTPUT/NAME/model.safetensors

Prints one JSON object: top1 and top5 in percent, the loss, the number of images. Every number of
ranks gives the same figures, since each image is evaluated once.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.startup import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c("evaluate.py")

import internimage
from classification.command_line import Parser, run_script
from classification.config import get_config
from classification.data import build_data
from classification.distributed import leave, start_ranks
from classification.engine import evaluate
from classification.models import build_model

NAME = "evaluate.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = Parser(NAME, "Evaluates saved weights on the test images.")
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="the weights")
    parser.add_argument("--use-ema", action="store_true", help="the averaged ones of a ckpt_*.pth")

    def script() -> None:
        args = parser.parse_known(arguments)
        batch_size = ["DATA.BATCH_SIZE", args.batch_size] if args.batch_size else []
        config = get_config(args.cfg, [*batch_size, *args.opts])
        ranks = start_ranks()
        data = build_data(config, ranks)
        model = build_model(config, num_classes=len(data.class_names)).to(ranks.device)
        internimage.load_checkpoint(model, args.checkpoint, use_ema=args.use_ema)
        scores = evaluate(model, data.test_loader, device=ranks.device)
        if ranks.is_main:
            print(json.dumps(dataclasses.asdict(scores), indent=2))

    return run_script(NAME, script)


if __name__ == "__main__":
    leave(main())
