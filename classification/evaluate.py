r"""Evaluates saved weights on the test images of a data set.

    torchrun --nproc_per_node 2 classification/evaluate.py \
        --cfg classification/configs/NAME.yaml --checkpoint OUTPUT/NAME/model.safetensors

Prints one JSON object: the weights, top1 and top5 in percent, the loss, the number of images. Every
number of ranks gives the same figures, since each image is evaluated once.
``train.py --eval --resume PTH`` does the same with the weights that the training evaluated.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.launch.startup import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c("evaluate.py")

from yacs.config import CfgNode

from classification.data import build_data
from classification.distributed import Ranks, start_ranks
from classification.evaluation import Scores, evaluate
from classification.inference import build_forward, load_weights_to_evaluate
from classification.launch.arguments import SettingsParser
from classification.launch.command_line import run_script
from classification.models import build_model
from internimage.processes import leave

NAME = "evaluate.py"


def evaluate_weights(config: CfgNode, ranks: Ranks, *, use_ema: bool | None = None) -> Scores:
    """Evaluates MODEL.RESUME, or else MODEL.PRETRAINED, and prints the scores as JSON.

    Args:
        config: The settings.
        ranks: This process among all.
        use_ema: See ``load_weights_to_evaluate``.

    Raises:
        ValueError: The weights are of another model or of other classes, the file is broken, or
            there are no images.
        OSError: There is no such file.
    """
    data = build_data(config, ranks)
    num_classes = len(data.class_names)
    model = build_model(config, num_classes=num_classes)
    names = () if config.EVAL_22K_TO_1K else data.class_names
    loaded = load_weights_to_evaluate(config, model, use_ema=use_ema, class_names=names)
    forward = build_forward(config, model, ranks.device, num_classes=num_classes)
    scores = evaluate(forward, data, ranks)
    if ranks.is_main:
        print(json.dumps({"weights": loaded, **dataclasses.asdict(scores)}, indent=2))
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = SettingsParser(NAME, "Evaluates saved weights on the test images.")
    parser.add_argument(
        "--checkpoint", dest="MODEL.RESUME", required=True, metavar="PATH", help="the weights"
    )
    parser.add_argument("--use-ema", action="store_true", help="the averaged ones of a ckpt_*.pth")
    parser.set_defaults(EVAL_MODE="True")

    def script() -> None:
        config, args = parser.parse_settings(arguments)
        evaluate_weights(config, start_ranks(), use_ema=args.use_ema)

    return run_script(NAME, script)


if __name__ == "__main__":
    leave(main())
