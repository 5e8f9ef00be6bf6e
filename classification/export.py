r"""Writes a classifier as an ONNX file, and as a TensorRT engine if asked.

    python classification/export.py --model_name internimage_t_1k_224 --ckpt_dir pretrained/ --onnx
    python classification/export.py --cfg classification/configs/NAME.yaml \
        --checkpoint OUTPUT/NAME/model.safetensors --output NAME.onnx --dynamic batch --half

The first form is the original's: configs/MODEL_NAME.yaml, CKPT_DIR/MODEL_NAME.pth, MODEL_NAME.onnx
in the current folder. The file is there when ONNX Runtime gives the answers of PyTorch, and the
difference is printed. ``--trt`` builds an engine beside it with tensorrt/build_engine.py, whose
own flags (another GPU, profiles of open axes, the plugin) a second call of it takes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.launch.startup import exit_on_ctrl_c

if __name__ == "__main__":
    # Before the imports below, which take seconds.
    exit_on_ctrl_c("export.py")

from yacs.config import CfgNode

from classification.config import get_config
from classification.data.transforms import build_preprocessing
from classification.inference import build_saved_model
from classification.launch.command_line import run_script
from internimage.export.arguments import add_export_arguments, add_tolerance, read_export_options
from internimage.export.classifier import export_classifier
from internimage.export.engine import build_engine
from internimage.export.packages import require_packages
from internimage.export.placing import check_output
from internimage.predict import read_class_names
from internimage.processes import leave
from internimage.script import Parser, nearest_hint

NAME = "export.py"
ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "classification" / "configs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return run_script(NAME, lambda: _export(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(NAME, "Writes a classifier as ONNX.")
    # The original's flags first, whose spelling is with _; --onnx of them chooses nothing any more.
    parser.add_argument(
        "--model_name", "--model-name", metavar="NAME", help="of a file in classification/configs/"
    )
    parser.add_argument(
        "--ckpt_dir",
        "--ckpt-dir",
        type=Path,
        metavar="DIR",
        help="folder with NAME.pth or NAME.safetensors (default pretrained/)",
    )
    parser.add_argument("--onnx", action="store_true", help="write ONNX, as is done anyway")
    parser.add_argument("--trt", action="store_true", help="then build a TensorRT engine")
    parser.add_argument("--cfg", type=Path, metavar="YAML", help="the settings, for --model_name")
    parser.add_argument("--checkpoint", metavar="PATH", help="the weights, for --ckpt_dir")
    parser.add_argument("--use-ema", action="store_true", help="the averaged ones of a ckpt_*.pth")
    parser.add_argument(
        "--random-weights", action="store_true", help="no weights: the answers mean nothing"
    )
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="one name a line")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="any other settings"
    )
    # The original's command names no output.
    add_export_arguments(parser, output_needed=False)
    add_tolerance(parser)
    args = parser.parse_known(arguments)
    if (args.model_name is None) == (args.cfg is None):
        got = "neither" if args.cfg is None else "both"
        raise ValueError(f"expected --model_name NAME or --cfg YAML, got {got}")
    given = [name for name in ("checkpoint", "ckpt_dir") if getattr(args, name) is not None]
    if args.random_weights:
        given.append("random_weights")
    if len(given) > 1:
        raise ValueError(f"expected weights from one place, got --{' and --'.join(given)}")
    if args.ckpt_dir is not None and args.model_name is None:
        raise ValueError("expected --checkpoint PATH beside --cfg, got --ckpt_dir")
    if args.use_ema and args.random_weights:
        raise ValueError("expected --use-ema beside weights, got it and --random-weights")
    if len(args.opts) % 2:  # here, where only what was typed is in the list
        raise ValueError(f"expected KEY VALUE pairs in --opts, got {' '.join(args.opts)}")
    return args


def _export(args: argparse.Namespace) -> None:
    """Exports, prints the report, builds the engine."""
    options = read_export_options(args)
    config = _read_config(args)
    output = args.output or Path(f"{config.MODEL.NAME}.onnx")
    # Looked at again by the export, but that is after the weights, which may be a download.
    require_packages(NAME)
    check_output(output)
    names = () if args.class_names is None else read_class_names(args.class_names)
    saved = build_saved_model(config, use_ema=args.use_ema)
    report = export_classifier(
        saved.model.eval(),
        output,
        name=config.MODEL.NAME,
        preprocessing=build_preprocessing(config),
        class_names=names or saved.class_names,  # what was typed counts more than the checkpoint
        options=options,
        crop=config.TEST.CROP,
        tolerance=args.tolerance,
        keep=args.keep,
    )
    print(report)
    print(f"  weights: {saved.weights or 'random: the answers mean nothing'}")
    if args.trt:
        build_engine(output, ROOT)


def _read_config(args: argparse.Namespace) -> CfgNode:
    path, weights = args.cfg, args.checkpoint
    if args.model_name is not None:
        path = CONFIGS / f"{args.model_name}.yaml"
        if not path.is_file():
            known = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
            raise ValueError(
                f"expected --model_name of a file in {CONFIGS}, got {args.model_name}"
                f"{nearest_hint(args.model_name, known)}"
            )
        if weights is None and not args.random_weights:
            weights = _find_weights(args.ckpt_dir or Path("pretrained"), args.model_name)
    if weights is None and not args.random_weights:
        raise ValueError("expected --checkpoint PATH or --random-weights, got neither")
    options = list(args.opts)
    if weights is not None:
        # EVAL_MODE: settings of the training beside RESUME are not to be checked.
        options += ["EVAL_MODE", "True", "MODEL.RESUME", str(weights)]
    return get_config(path, options)


def _find_weights(folder: Path, name: str) -> Path:
    for suffix in (".pth", ".safetensors"):  # the original's files first
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise FileNotFoundError(
        f"expected {name}.pth or {name}.safetensors in --ckpt_dir, got none in {folder}; "
        f"`internimage export {name} --output X.onnx` downloads the released weights"
    )


if __name__ == "__main__":
    leave(main())
