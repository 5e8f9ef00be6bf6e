"""The flags of every command that exports, and what they ask for."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from internimage.export.options import ExportOptions


def add_export_arguments(parser: argparse.ArgumentParser, *, output_needed: bool = True) -> None:
    """Describe the flags.

    Args:
        parser: takes them.
        output_needed: whether ``--output`` has no default.
    """
    parser.add_argument(
        "--output", type=Path, required=output_needed, metavar="X.onnx", help="the file to write"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="height and width of the input, one number for a square; default: the model's test "
        "size",
    )
    parser.add_argument(
        "--dynamic",
        nargs="+",
        metavar="AXIS",
        help="leave open what a run may choose: batch, height, width; default: height and width of "
        "detectors and segmentors of whole images without --image-size, else none",
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="half precision where it does no harm, the backbone above all; float32 outside",
    )
    # None of these flags has `choices`: ExportOptions checks the values, for callers in Python too.
    parser.add_argument(
        "--operator",
        default="grid_sample",
        metavar="FORM",
        help="grid_sample (default): standard operators, runs everywhere; node: one node a layer "
        "for the TensorRT plugin and ONNX Runtime's custom operator",
    )
    parser.add_argument(
        "--boxes",
        default="operators",
        metavar="FORM",
        help="of an R-CNN: operators (default); loops: for TensorRT for RTX, which has neither "
        "NonMaxSuppression nor RoiAlign; the same results, slower elsewhere",
    )
    parser.add_argument(
        "--opset", type=int, default=18, help="of ONNX's operators: 17, 18 (default) or 19"
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images of the input (1)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep a file that differs too much as X.onnx.failed"
    )


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    """Describe the flag of commands whose outputs are compared as numbers."""
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest difference to PyTorch, over the largest output; default: 1e-5, half 2e-3",
    )


def read_export_options(parsed: argparse.Namespace) -> ExportOptions:
    """Return what the flags ask for.

    Raises:
        ValueError: a value is unknown, or there are more sizes than sides.
    """
    size = parsed.image_size
    if size is not None and len(size) > 2:
        raise ValueError(f"expected --image-size H or H W, got {' '.join(map(str, size))}")
    try:
        return ExportOptions(
            # The first and the last of one number are both sides of a square.
            image_size=None if size is None else (size[0], size[-1]),
            dynamic=None if parsed.dynamic is None else frozenset(parsed.dynamic),
            precision="fp16" if parsed.half else "fp32",
            operator=parsed.operator,
            opset=parsed.opset,
            batch_size=parsed.batch_size,
            boxes=parsed.boxes,
        )
    except ValueError as error:
        raise ValueError(_with_flag(str(error))) from error


def _with_flag(message: str) -> str:
    """Name a field of ``ExportOptions`` as it was typed: ``--batch-size``, not ``batch_size``."""
    return re.sub(
        r"^ExportOptions: expected (\w+)",
        lambda found: f"expected --{found[1].replace('_', '-')}",
        message,
    )
