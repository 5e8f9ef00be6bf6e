"""Converts a classifier by mmdeploy.

    python classification/deploy.py DEPLOY_CFG MODEL_CFG CHECKPOINT IMG --work-dir DIR

MODEL_CFG is a file of `classification/configs`, DEPLOY_CFG one of `classification/deploy/configs`.
DIR then holds end2end.onnx, for TensorRT end2end.engine, and pictures of both models' answers. The
exact export, with what `internimage run` needs in the file, is classification/export.py.

A user's mistake ends a run with one line and exit code 2.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.launch.startup import exit_on_ctrl_c

if __name__ == "__main__":
    # Before the imports below, which take seconds.
    exit_on_ctrl_c("deploy.py")

from classification.config import get_config
from classification.data.transforms import build_preprocessing
from classification.inference import build_saved_model
from classification.launch.command_line import run_script
from internimage.openmmlab_needed import openmmlab_needed
from internimage.processes import leave

NAME = "deploy.py"
ROOT = Path(__file__).resolve().parents[1]

with openmmlab_needed(NAME):
    from internimage.integrations.openmmlab.export.classifier_conversion import (
        Classifier,
        convert_classifier,
        read_classifier_deploy_config,
    )
    from internimage.integrations.openmmlab.export.deploy_arguments import (
        ExportRequest,
        parse_deploy,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return run_script(NAME, lambda: _convert(arguments))


def _convert(arguments: Sequence[str] | None) -> None:
    request = parse_deploy(NAME, arguments, task="classification")
    # The parser is that of three tasks: here its other route is a script of its own.
    if isinstance(request, ExportRequest):
        raise ValueError("expected DEPLOY_CFG and no --output, got one: export.py exports exactly")
    deploy = read_classifier_deploy_config(request)
    # EVAL_MODE: nothing about training is to be checked.
    options = ["EVAL_MODE", "True", "MODEL.RESUME", request.checkpoint]
    for key, value in request.cfg_options.items():
        options += [key, str(value)]  # yacs reads values from their text
    config = get_config(request.model_config, options)
    saved = build_saved_model(config, use_ema=False)
    classifier = Classifier(
        model=saved.model.eval(),
        name=config.MODEL.NAME,
        preprocessing=build_preprocessing(config),
        class_names=saved.class_names,
        crop=config.TEST.CROP,
    )
    convert_classifier(request, deploy, classifier, ROOT)


if __name__ == "__main__":
    leave(main())
