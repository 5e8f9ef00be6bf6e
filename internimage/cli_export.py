"""The subcommand ``internimage export``: a classifier as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from internimage.export.arguments import add_export_arguments, add_tolerance, read_export_options
from internimage.export.classifier import export_classifier
from internimage.export.packages import require_packages
from internimage.export.placing import check_output
from internimage.predict import build_predictor, read_class_names
from internimage.script import run_script
from internimage.variants import full_name

LESS_MEMORY = "a smaller --image-size or --batch-size needs less"


def add_classifier_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a released model or a size (internimage list); default: as --checkpoint says",
    )
    add_export_arguments(parser)
    add_tolerance(parser)
    parser.add_argument("--checkpoint", type=Path, help="weights; a released MODEL needs none")
    parser.add_argument("--use-ema", action="store_true", help="take the moving average")
    parser.add_argument(
        "--random-weights", action="store_true", help="no weights: the answers mean nothing"
    )
    parser.add_argument("--class-names", type=Path, help="text file, one name a line")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Export, print the report, return the exit code."""
    return run_script("internimage export", lambda: _export(options), memory_advice=LESS_MEMORY)


def _export(options: argparse.Namespace) -> None:
    # First what takes no time: a wrong flag is not to wait for a gigabyte of weights.
    export_options = read_export_options(options)
    require_packages("internimage export")
    check_output(options.output)

    names = () if options.class_names is None else read_class_names(options.class_names)
    predictor = build_predictor(
        options.model,
        options.checkpoint,
        class_names=names,
        random_weights=options.random_weights,
        use_ema=options.use_ema,
    )
    report = export_classifier(
        predictor.model,
        options.output,
        name=full_name(predictor.model_name),  # the benchmark of engines looks sizes up by it
        preprocessing=predictor.preprocessing,
        class_names=predictor.class_names,
        options=export_options,
        tolerance=options.tolerance,
        keep=options.keep,
    )
    print(report)
    print(f"  weights: {predictor.weights}")
