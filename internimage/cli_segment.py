"""The subcommand ``internimage segment``: the class of every pixel of images and videos."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from internimage.answers import print_classes
from internimage.cli_arguments import rate
from internimage.cli_files import Request, add_file_arguments, answer_files, read_request

PALETTES = (
    "ade20k",
    "ade",
    "cityscapes",
    "cocostuff",
    "mapillary",
    "nyu",
    "pascal_context",
    "voc",
    "random",
)


def add_segment_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand's arguments."""
    add_file_arguments(parser, "segmentor", PALETTES)
    add_opacity(parser)
    parser.set_defaults(run=run_segment)


def add_opacity(parser: argparse.ArgumentParser) -> None:
    """Describe the argument for the colours over the image."""
    parser.add_argument(
        "--opacity", type=rate, default=0.5, help="of the colours, 0-1 (default 0.5)"
    )


def run_segment(options: argparse.Namespace) -> int:
    """Segment, input by input; one that cannot be read costs the others nothing."""
    return segment(read_request("internimage segment", options), opacity=options.opacity)


def segment(request: Request, *, opacity: float) -> int:
    """Segment, print which classes were found, return the exit code.

    Args:
        request: the segmentor and the files.
        opacity: of the colours over the image, 0-1.

    Raises:
        FileNotFoundError: the checkpoint or the config does not exist.
        OSError: the folder for the output cannot be made.
        ValueError: OpenMMLab is missing, or the segmentor cannot be built; the message says why.
    """

    def build(segmentor: Any, _: Any, **sources: Any) -> Any:
        return segmentor.build_segmentor(**sources)

    def predict(_: Any, segment_files: Any, model: Any) -> Iterator[Any]:
        return segment_files.segment_files(model, request.inputs, request.output, opacity=opacity)

    return answer_files(
        request,
        ("segmentor", "segment_files"),
        build,
        predict,
        settings={"opacity": opacity},
        print_answer=print_classes,
    )
