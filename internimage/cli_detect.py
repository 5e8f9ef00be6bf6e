"""The subcommand ``internimage detect``: objects in images, folders and videos."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from internimage.answers import print_detections
from internimage.cli_arguments import positive, rate
from internimage.cli_files import Request, add_file_arguments, answer_files, read_request

PALETTES = ("coco", "voc", "citys", "random")


def add_detect_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand's arguments."""
    add_file_arguments(parser, "detector", PALETTES)
    parser.add_argument(
        "--score-threshold", type=rate, default=0.3, help="least score, 0-1 (default 0.3)"
    )
    parser.add_argument("--topk", type=positive, help="detections an image at most")
    parser.set_defaults(run=run_detect)


def run_detect(options: argparse.Namespace) -> int:
    """Detect objects, input by input; one that cannot be read costs the others nothing."""
    return detect(
        read_request("internimage detect", options),
        score_threshold=options.score_threshold,
        topk=options.topk,
    )


def detect(request: Request, *, score_threshold: float, topk: int | None) -> int:
    """Detect objects, print what was found, return the exit code.

    Args:
        request: the detector and the files.
        score_threshold: least score, 0-1.
        topk: detections an image at most.

    Raises:
        FileNotFoundError: the checkpoint or the config does not exist.
        OSError: the folder for the output cannot be made.
        ValueError: OpenMMLab is missing, or the detector cannot be built; the message says why.
    """
    limits = {"score_threshold": score_threshold, "topk": topk}

    def build(detector: Any, _: Any, **sources: Any) -> Any:
        return detector.build_detector(**sources)

    def predict(_: Any, detect_files: Any, model: Any) -> Iterator[Any]:
        return detect_files.detect_files(model, request.inputs, request.output, **limits)

    return answer_files(
        request,
        ("detector", "detect_files"),
        build,
        predict,
        settings=limits,
        print_answer=print_detections,
    )
