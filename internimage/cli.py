"""The command ``internimage``: list, info, predict, features, detect, segment, export, run, ...

Exit codes: 0 done, 2 bad input (one line on stderr says which; the other images are still done),
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from internimage import __version__
from internimage.cli_arguments import positive
from internimage.runtime import command as runtime
from internimage.script import nearest_hint

INSTALL_TORCH = "`pip install torch`, or see docs/install.md"


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Raises:
        ImportError: PyTorch is not installed.
    """
    # Not above: `internimage run` comes before, and works where PyTorch is not installed.
    from internimage import cli_commands as commands
    from internimage.cli_detect import add_detect_arguments
    from internimage.cli_export import add_classifier_arguments
    from internimage.cli_segment import add_segment_arguments

    parser = argparse.ArgumentParser(prog="internimage", description="InternImage from the shell.")
    parser.add_argument("--version", action="version", version=f"internimage {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True)

    listing = parsers.add_parser("list", help="released models and sizes")
    listing.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as '*_384'")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=commands.run_list)

    info = parsers.add_parser("info", help="what a model is, what it costs, where its weights are")
    info.add_argument("name", help="a released model or a size")
    info.add_argument("--image-size", type=positive, help="side of the image, pixels")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=commands.run_info)

    predict = parsers.add_parser("predict", help="classify images")
    _add_model_arguments(predict)
    predict.add_argument("--topk", type=positive, default=5, help="labels an image (default 5)")
    predict.add_argument("--class-names", type=Path, help="text file, one name a line")
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.set_defaults(run=commands.run_predict)

    features = parsers.add_parser("features", help="save stage maps of images as safetensors")
    _add_model_arguments(features)
    features.add_argument("--output", type=Path, required=True, help="folder for the files")
    features.set_defaults(run=commands.run_features)

    add_detect_arguments(parsers.add_parser("detect", help="find objects in images and videos"))
    add_segment_arguments(
        parsers.add_parser("segment", help="find the class of every pixel of images and videos")
    )

    add_classifier_arguments(parsers.add_parser("export", help="write a classifier as ONNX"))

    run = parsers.add_parser("run", help="run an exported model on images; needs no PyTorch")
    runtime.add_run_arguments(run)  # for the help: main() hands it over before

    convert = parsers.add_parser("convert", help="rewrite a checkpoint with today's keys")
    convert.add_argument("source", type=Path, help="checkpoint of any layout")
    convert.add_argument("target", type=Path, help="*.safetensors or *.pth")
    convert.add_argument("--model", help="check every key and shape against this model")
    convert.add_argument("--use-ema", action="store_true", help="take the moving average")
    convert.add_argument("--force", action="store_true", help="replace an existing target")
    convert.set_defaults(run=commands.run_convert)
    for subcommand in parsers.choices.values():
        subcommand.set_defaults(flags=list(subcommand._option_string_actions))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if typed[:1] == ["run"]:
        return runtime.main(typed[1:], program="internimage run")
    try:
        parser = build_parser()
    except ImportError as error:
        message = f"expected PyTorch, which all but `internimage run` needs, got {error}"
        print(f"internimage: {message}; to install it: {INSTALL_TORCH}", file=sys.stderr)
        return runtime.BAD_INPUT
    except KeyboardInterrupt:  # seconds pass while PyTorch is imported
        return runtime.report_stop("internimage")
    options, unknown = parser.parse_known_args(typed)
    if unknown:
        hint = nearest_hint(unknown[0], options.flags)
        mistake = ValueError(f"expected known flags, got {' '.join(unknown)}{hint}")
        return runtime.report(f"internimage {options.command}", mistake)
    try:
        exit_code = options.run(options)
        if sys.stdout is not None:  # None where the shell closed it (`>&-`)
            sys.stdout.flush()
    except BrokenPipeError:
        return runtime.discard_output()
    except (ValueError, OSError, ImportError) as error:
        return runtime.report(f"internimage {options.command}", error)
    except KeyboardInterrupt:
        return runtime.report_stop(f"internimage {options.command}")
    return exit_code


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--model", help="a released model or a size (internimage list)")
    parser.add_argument("--checkpoint", type=Path, help="weights; a released --model needs none")
    parser.add_argument(
        "--random-weights", action="store_true", help="no weights: the answers mean nothing"
    )
    parser.add_argument("--use-ema", action="store_true", help="take the moving average")
    parser.add_argument("--image-size", type=positive, help="side of the image, pixels")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")


if __name__ == "__main__":
    sys.exit(main())
