"""Builds a TensorRT engine from an ONNX file.

    python tensorrt/build_engine.py X.onnx --output X.engine
    python tensorrt/build_engine.py X.onnx --output X.engine --profile NAME=MIN:OPT:MAX

Works with TensorRT 10 and 11 (``pip install tensorrt``) and with TensorRT for RTX (``pip install
tensorrt-rtx``), which also builds for a GPU that is not in this machine
(``--compute-capability 8.6``). An engine runs on the library version and the kind of GPU that it
was built for. ``X.engine.json`` beside it holds what run_engine.py needs: keep both.

Half precision is a property of the exported model (``--half`` there). A mistake is one line and
exit code 2; the nodes that a parser refuses are listed before it.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# The root has internimage, this folder its modules. NVIDIA's `tensorrt` is found all the same: to
# Python a package anywhere on the path comes before a folder of that name without __init__.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from building import BuildOptions, ParseError, build_engine
from internimage.cli_arguments import positive
from internimage.script import Parser, run_script
from nvidia_runtime import NAMES, choose_runtime
from profiles import read_profile

NAME = "build_engine.py"


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(NAME, "Build a TensorRT engine from an ONNX file.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--output", type=Path, required=True, metavar="X.engine")
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME=MIN:OPT:MAX",
        help="sizes of an input with open axes, as input=1x3x320x320:1x3x800x1344:2x3x1344x1344; "
        "default: from the model's test size",
    )
    parser.add_argument("--runtime", choices=NAMES, help="default: what is installed")
    parser.add_argument(
        "--fp16", action="store_true", help="let TensorRT 10 choose float16; 11 and RTX refuse it"
    )
    parser.add_argument("--no-tf32", action="store_true", help="whole float32 products")
    parser.add_argument("--timing-cache", type=Path, metavar="FILE", help="read and written")
    parser.add_argument("--workspace", type=positive, metavar="MIB", help="default: all memory")
    parser.add_argument("--plugin", type=Path, metavar="LIB.so", help="for --operator node exports")
    parser.add_argument(
        "--compute-capability", metavar="8.6", help="build for this GPU (TensorRT for RTX only)"
    )
    parser.add_argument(
        "--optimization-level", type=int, choices=range(6), help="0 builds fast, 5 runs fast"
    )
    return parser


def read_options(arguments: argparse.Namespace) -> BuildOptions:
    """Turn the command line into what is to be built.

    Raises:
        ValueError: a flag has no such value.
    """
    capability = arguments.compute_capability
    if capability is not None and not re.fullmatch(r"\d+\.\d", capability):
        raise ValueError(f"expected --compute-capability as 8.6, got {capability!r}")
    major, minor = capability.split(".") if capability else (0, 0)
    return BuildOptions(
        model=arguments.model,
        output=arguments.output,
        profiles=[read_profile(text) for text in arguments.profile],
        fp16=arguments.fp16,
        tf32=not arguments.no_tf32,
        workspace=arguments.workspace,
        timing_cache=arguments.timing_cache,
        plugin=arguments.plugin,
        compute_capability=(int(major), int(minor)) if capability else None,
        optimization_level=arguments.optimization_level,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def script() -> None:
        # A build is one long call, for whose end Python's own handlers would wait.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        parsed = build_parser().parse_known(arguments)
        options = read_options(parsed)
        if not options.model.is_file():
            raise FileNotFoundError(f"expected an ONNX file, got none at {options.model}")
        # Each refused node has a line, before the one that run_script() makes of the error.
        try:
            report = build_engine(choose_runtime(parsed.runtime), options)
        except ParseError as error:
            for line in error.lines:
                print(f"{NAME}: {line}", file=sys.stderr)
            raise
        print(report)

    return run_script(
        NAME, script, memory_advice="a smaller largest size in --profile or --workspace needs less"
    )


if __name__ == "__main__":
    sys.exit(main())
