"""What ``internimage detect`` and ``internimage segment`` share: arguments, files, JSON, errors.

Both need OpenMMLab, which nothing else in the command line does, so that is imported when they run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from internimage.cli_commands import check_device
from internimage.openmmlab_needed import describe_missing
from internimage.runtime.command import report
from internimage.script import run_script

OWN_WARNINGS = "--cfg-options |InternImage: "
"""How the warnings of this package begin that are about settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a model.

    Args:
        program: what to call the program in errors.
        inputs: images, folders and videos.
        output: folder for pictures and JSON.
        checkpoint: weights of the model: a file, an address or a released name.
        config: its config, None for the one that the checkpoint holds.
        cfg_options: ``KEY=VALUE``, settings that override those of ``config``.
        device: where the model runs.
        palette: colours, None for the model's own.
        tta: whether to use the config's test-time augmentation.
        as_json: print JSON instead of tables.
        configs: folder of today's configs, for the error about one of the old generation.
    """

    program: str
    inputs: Sequence[str | Path]
    output: Path
    checkpoint: str
    config: Path | None
    cfg_options: Sequence[str]
    device: str
    palette: str | None
    tta: bool = False
    as_json: bool = False
    configs: Path | None = None


def add_file_arguments(parser: argparse.ArgumentParser, kind: str, palettes: Sequence[str]) -> None:
    """Describe the arguments that are the same for all models.

    Args:
        parser: takes them.
        kind: of the model.
        palettes: names of colours.
    """
    parser.add_argument("inputs", nargs="+", metavar="IMAGE", help="image, folder of them, video")
    parser.add_argument(
        "--checkpoint", required=True, help=f"weights of a {kind}: a file or a released name"
    )
    parser.add_argument(
        "--config", type=Path, help="its config; mmengine's checkpoints hold theirs"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="KEY=VALUE", help="settings that override --config's"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for pictures and JSON")
    parser.add_argument("--palette", choices=palettes, help="colours; default: the model's own")
    parser.add_argument("--tta", action="store_true", help="the config's test-time augmentation")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def read_request(program: str, options: argparse.Namespace) -> Request:
    """Return what the arguments of :func:`add_file_arguments` ask for."""
    return Request(
        program=program,
        inputs=options.inputs,
        output=options.output,
        checkpoint=options.checkpoint,
        config=options.config,
        cfg_options=options.cfg_options or (),
        device=options.device,
        palette=options.palette,
        tta=options.tta,
        as_json=options.json,
    )


def add_demo_arguments(parser: argparse.ArgumentParser, kind: str, palettes: Sequence[str]) -> None:
    """Describe the arguments of an ``image_demo.py``: those of the original.

    Args:
        parser: takes them.
        kind: of the model.
        palettes: names of colours.
    """
    parser.add_argument("img", help="image, folder of images, or video")
    parser.add_argument("config", type=Path, help=f"config of the {kind}")
    parser.add_argument("checkpoint", help="its weights: a file or a released name")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default demo)")
    parser.add_argument("--device", help="default: cuda:0 where PyTorch sees a GPU, else cpu")
    parser.add_argument("--palette", choices=palettes, help="colours; default: the model's own")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings that override the config's",
    )


def read_demo_request(program: str, options: argparse.Namespace, configs: Path) -> Request:
    """Return what the arguments of :func:`add_demo_arguments` ask for.

    Args:
        program: what to call the program in errors.
        options: the arguments.
        configs: folder of today's configs, for the error about one of the old generation.
    """
    return Request(
        program=program,
        inputs=[options.img],
        output=options.out,
        checkpoint=options.checkpoint,
        config=options.config,
        cfg_options=options.cfg_options,
        device=options.device or ("cuda:0" if torch.cuda.is_available() else "cpu"),
        palette=options.palette,
        configs=configs,
    )


def run_demo(name: str, demo: Callable[[], int]) -> int:
    """Run an ``image_demo.py`` and return its exit code.

    Args:
        name: the script's name.
        demo: all of its work, which returns the exit code.
    """
    exit_code = 0

    def script() -> None:
        nonlocal exit_code
        exit_code = demo()

    advice = "a smaller scale in the config's test pipeline needs less"
    return run_script(name, script, memory_advice=advice) or exit_code


def answer_files(
    request: Request,
    modules: Sequence[str],
    build: Callable[..., Any],
    predict: Callable[..., Iterable[Any]],
    *,
    settings: Mapping[str, Any],
    print_answer: Callable[[dict[str, Any]], None],
) -> int:
    """Predict, input by input, print what was found, return the exit code.

    One input that cannot be read costs the others nothing.

    Args:
        request: the model and the files.
        modules: what ``build`` and ``predict`` need of the package's room for prediction.
        build: takes those modules, then what the model is made of by keyword; returns the model.
        predict: takes those modules, then the model; yields answers and failures.
        settings: further ones, for the JSON.
        print_answer: prints one answer for people.

    Raises:
        FileNotFoundError: the checkpoint or the config does not exist.
        OSError: the folder for the output cannot be made.
        ValueError: OpenMMLab is missing, or the model cannot be built; the message says why.
    """
    device = check_device(request.device)
    loading, files, *own = _import_prediction("loading", "files", *modules)
    answers: list[dict[str, Any]] = []
    exit_code = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries; what matters here is an error
        # What is said about the user's own settings matters as well.
        warnings.filterwarnings("always", OWN_WARNINGS, UserWarning)
        warnings.showwarning = partial(_show_warning, request.program)
        model = build(
            *own,
            checkpoint=request.checkpoint,
            config=request.config,
            device=device,
            palette=request.palette,
            tta=request.tta,
            cfg_options=loading.read_options(request.cfg_options),
            configs=request.configs,
        )
        if not request.as_json:
            _print_head(model)
        for answer in predict(*own, model):
            if isinstance(answer, files.Failure):
                exit_code = report(request.program, answer.error)
                answers.append({"input": str(answer.source), "error": str(answer.error)})
                continue
            answers.append(answer)
            if not request.as_json:
                print_answer(answer)
    if request.as_json:
        content = {
            "checkpoint": model.checkpoint,
            "config": model.config,
            "class_names": list(model.class_names),
            "tta": request.tta,
            **settings,
            "answers": answers,
        }
        print(json.dumps(content, indent=2, allow_nan=False))
    return exit_code


def _show_warning(program: str, message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, where Python would show the line of code as well."""
    print(f"{program}: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _import_prediction(*names: str) -> list[ModuleType]:
    """Import what needs OpenMMLab; what its packages print while they load is dropped.

    Raises:
        ValueError: a package is missing, or mmcv was installed without its operators.
    """
    room = "internimage.integrations.openmmlab.prediction"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return [importlib.import_module(f"{room}.{name}") for name in names]
    except ImportError as error:
        raise ValueError(describe_missing(error)) from error


def _print_head(model: Any) -> None:
    names = len(model.class_names) or "unknown"
    print(f"checkpoint: {model.checkpoint}\nconfig: {model.config}\nnames of classes: {names}")
