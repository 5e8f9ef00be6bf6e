"""The command line of both deploy.py: mmdeploy's flags, and those of the exact export.

What a flag of mmdeploy's tool was for and cannot be any more is refused with its reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from internimage.answer_files import answer_names
from internimage.export import ExportOptions
from internimage.export.arguments import add_export_arguments, read_export_options
from internimage.integrations.openmmlab.scripts.arguments import ScriptParser
from internimage.script import nearest_hint

USAGE = (
    "DEPLOY_CFG MODEL_CFG CHECKPOINT IMG, which converts by mmdeploy, or MODEL_CFG CHECKPOINT "
    "--output X.onnx, which exports exactly"
)

SEGMENTATION = "segmentation"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Flags of mmdeploy's tool that are for what is not here, each with the reason.
_REFUSED = {
    "calib_dataset_cfg": "int8 is not offered: TensorRT 11 has no calibration any more",
    "quant": "it is for ncnn, and the deploy configs here are for ONNX Runtime and TensorRT",
    "quant_image_dir": "it is for ncnn, and the deploy configs here are for ONNX Runtime and "
    "TensorRT",
    "uri": "it is for a board with SNPE, and the deploy configs here are for ONNX Runtime and "
    "TensorRT",
}
# One command line for two routes: flags of the other one are refused, not passed over.
_OF_CONVERSION = ("test_img", "work_dir", "dump_info", "show", "log_level", "device")
_OF_EXPORT = (
    "image_size", "dynamic", "half", "operator", "boxes", "opset", "batch_size", "argmax", "keep",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """A conversion by mmdeploy.

    Args:
        deploy_config: path of the deploy config.
        model_config: path of the model's config.
        checkpoint: a file, an address or a released name.
        image: the image that is traced.
        test_images: what the converted model is tried on.
        work_dir: the folder for all files.
        device: where PyTorch traces.
        log_level: of mmdeploy, a name of :mod:`logging`.
        show: open windows with the pictures.
        dump_info: write what mmdeploy's SDK reads.
        cfg_options: settings that override the model config's.
    """

    deploy_config: Path
    model_config: Path
    checkpoint: str
    image: Path
    test_images: tuple[Path, ...]
    work_dir: Path
    device: str
    log_level: str
    show: bool
    dump_info: bool
    cfg_options: Mapping[str, Any]

    @property
    def picture_endings(self) -> list[str]:
        """How the names of each test image's pictures end: nothing where it is the only one."""
        if len(self.test_images) == 1:
            return [""]
        return [f"_{name}" for name in answer_names(self.test_images)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """An exact export.

    Args:
        model_config: path of the model's config.
        checkpoint: a file, an address or a released name.
        output: the ONNX file.
        options: what the file is to be.
        argmax: labels in the place of scores, of a segmentor.
        keep: leave a file that differs from PyTorch beside ``output``.
        cfg_options: settings that override the model config's.
    """

    model_config: Path
    checkpoint: str
    output: Path
    options: ExportOptions
    argmax: bool
    keep: bool
    cfg_options: Mapping[str, Any]


def parse_deploy(
    name: str, arguments: Sequence[str] | None, *, task: str
) -> ConversionRequest | ExportRequest:
    """Return what the command line of a deploy.py asks for.

    Args:
        name: The script's name.
        arguments: The command line; None is the process's own.
        task: ``"classification"``, ``"detection"`` or ``"segmentation"``.

    Raises:
        ValueError: A flag is unknown, refused, of the other route, or has a wrong value, or the
            number of files is wrong.
    """
    parser = build_parser(name)
    typed = sys.argv[1:] if arguments is None else arguments
    # Two files or four, as the route has it, which argparse cannot say: all but the first are among
    # what it does not know.
    args, rest = parser.parse_known_args([parser._as_registered(text) for text in typed])
    unknown = [text for text in rest if text.startswith("-")]  # what is left of rest are files
    if unknown:
        hint = nearest_hint(unknown[0], list(parser._option_string_actions))
        raise ValueError(f"expected known flags, got {' '.join(unknown)}{hint}")
    files = [*([] if args.config is None else [args.config]), *rest]
    for flag, reason in _REFUSED.items():
        if getattr(args, flag):
            raise ValueError(f"expected no {_spelt(flag)}, got one: {reason}")
    if args.output is not None:
        if len(files) != 2:
            raise ValueError(
                f"expected MODEL_CFG CHECKPOINT before --output, got {len(files)} files: "
                f"{' '.join(files) or 'none'}"
            )
        _refuse_others(parser, args, _OF_CONVERSION, "the conversion by mmdeploy, without --output")
        if args.argmax and task != SEGMENTATION:
            raise ValueError(f"expected --argmax for segmentation alone, got it for {task}")
        return _read_export(args, files)
    if len(files) != 4:
        hint = "; --output FILE.onnx is missing" if len(files) == 2 else ""
        raise ValueError(
            f"expected {USAGE}, got {len(files)} files: {' '.join(files) or 'none'}{hint}"
        )
    _refuse_others(
        parser, args, _OF_EXPORT, "the exact export, with --output; here a deploy config says it"
    )
    return _read_conversion(args, files)


def build_parser(name: str) -> ScriptParser:
    """Describe the command line of a script of this name."""
    parser = ScriptParser(name, "Writes the model of a config as a file for other runtimes.")
    parser.usage = (
        f"{name} DEPLOY_CFG MODEL_CFG CHECKPOINT IMG [--work-dir DIR] [flags]\n"
        f"       {name} MODEL_CFG CHECKPOINT --output X.onnx [flags]"
    )
    # Their defaults are filled in later, by _read_conversion: a flag of the wrong route is noticed
    # even if it says the usual.
    by = parser.add_argument_group("conversion by mmdeploy")
    by.add_argument("--test-img", nargs="+", metavar="IMG", help="what to try the result on (IMG)")
    by.add_argument("--work-dir", metavar="DIR", help="folder for all files (the current one)")
    by.add_argument("--device", metavar="D", help="where PyTorch traces (cpu)")
    by.add_argument("--log-level", choices=LOG_LEVELS, help="of mmdeploy (INFO)")
    by.add_argument("--show", action="store_true", help="open windows with the pictures")
    by.add_argument("--dump-info", action="store_true", help="write what mmdeploy's SDK reads")
    # Known, so that they are refused with their reason and not as misspelt.
    by.add_argument("--calib-dataset-cfg", metavar="CFG", help="refused: int8 is not offered")
    by.add_argument("--quant", action="store_true", help="refused: for ncnn")
    by.add_argument("--quant-image-dir", metavar="DIR", help="refused: for ncnn")
    by.add_argument("--uri", metavar="ADDRESS", help="refused: for SNPE")
    add_export_arguments(parser, output_needed=False)
    parser.add_argument("--argmax", action="store_true", help="segmentation: labels, not scores")
    return parser


def _read_export(args: argparse.Namespace, files: Sequence[str]) -> ExportRequest:
    return ExportRequest(
        model_config=Path(files[0]),
        checkpoint=files[1],
        output=args.output,
        options=read_export_options(args),
        argmax=args.argmax,
        keep=args.keep,
        cfg_options=args.cfg_options,
    )


def _read_conversion(args: argparse.Namespace, files: Sequence[str]) -> ConversionRequest:
    device = args.device or "cpu"  # as mmdeploy's own tool
    _check_device(device)
    request = ConversionRequest(
        deploy_config=Path(files[0]),
        model_config=Path(files[1]),
        checkpoint=files[2],
        image=Path(files[3]),
        test_images=tuple(map(Path, args.test_img or files[3:])),  # IMG, as mmdeploy's tool
        work_dir=Path(args.work_dir or "."),
        device=device,
        log_level=args.log_level or "INFO",
        show=args.show,
        dump_info=args.dump_info,
        cfg_options=args.cfg_options,
    )
    endings = request.picture_endings
    for index, path in enumerate(request.test_images):
        first = endings.index(endings[index])
        if first < index:
            raise ValueError(
                f"expected --test-img with names of their own, got {request.test_images[first]} "
                f"and {path}"
            )
    return request


def _check_device(device: str) -> None:
    try:
        found = torch.device(device)
    except RuntimeError as error:  # words that it does not know
        raise ValueError(f"expected --device cpu or cuda:N, got {device}") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"expected --device cpu or cuda:N, got {device}")
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        what = f"with {count} of CUDA" if count else "without CUDA"
        raise ValueError(f"expected a device of this machine, got --device {device}, {what}")


def _refuse_others(
    parser: ScriptParser, args: argparse.Namespace, flags: Sequence[str], whose: str
) -> None:
    given = [_spelt(flag) for flag in flags if getattr(args, flag) != parser.get_default(flag)]
    if given:
        raise ValueError(f"expected flags of one route, got {', '.join(given)}, for {whose}")


def _spelt(flag: str) -> str:
    return f"--{flag.replace('_', '-')}"
