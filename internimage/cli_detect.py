"""The subcommand ``internimage detect``: objects in images, folders and videos.

It needs OpenMMLab, which nothing else in the command line does, so that is imported when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from internimage.cli_arguments import positive, rate
from internimage.cli_commands import check_device, report
from internimage.openmmlab_needed import describe_missing

if TYPE_CHECKING:
    from internimage.integrations.openmmlab.prediction.boxes import PaletteName
    from internimage.integrations.openmmlab.prediction.detector import Detector

PALETTES = ("coco", "voc", "citys", "random")
OWN_WARNINGS = "--cfg-options |InternImage: "
"""How the warnings of this package begin that are about settings."""


def add_detect_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand's arguments."""
    parser.add_argument("inputs", nargs="+", metavar="IMAGE", help="image, folder of them, video")
    parser.add_argument(
        "--checkpoint", required=True, help="weights of a detector: a file or a released name"
    )
    parser.add_argument(
        "--config", type=Path, help="its config; mmengine's checkpoints hold theirs"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="KEY=VALUE", help="settings that override --config's"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for pictures and JSON")
    parser.add_argument(
        "--score-threshold", type=rate, default=0.3, help="least score, 0-1 (default 0.3)"
    )
    parser.add_argument("--topk", type=positive, help="detections an image at most")
    parser.add_argument("--palette", choices=PALETTES, help="colours")
    parser.add_argument("--tta", action="store_true", help="the config's test-time augmentation")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_detect)


def run_detect(options: argparse.Namespace) -> int:
    """Detect objects, input by input; one that cannot be read costs the others nothing."""
    return detect(
        "internimage detect",
        options.inputs,
        options.output,
        checkpoint=options.checkpoint,
        config=options.config,
        cfg_options=options.cfg_options or (),
        device=options.device,
        palette=options.palette,
        tta=options.tta,
        score_threshold=options.score_threshold,
        topk=options.topk,
        as_json=options.json,
    )


def detect(
    program: str,
    inputs: Sequence[str | Path],
    output: Path,
    *,
    checkpoint: str,
    config: Path | None,
    cfg_options: Sequence[str],
    device: str,
    palette: PaletteName | None,
    tta: bool,
    score_threshold: float,
    topk: int | None,
    as_json: bool,
    configs: Path | None = None,
) -> int:
    """Detect objects, print what was found, return the exit code.

    Args:
        program: what to call the program in errors.
        inputs: images, folders and videos.
        output: folder for pictures and JSON.
        checkpoint: weights of a detector: a file, an address or a released name.
        config: its config, None for the one that the checkpoint holds.
        cfg_options: ``KEY=VALUE``, settings that override those of ``config``.
        device: where the model runs.
        palette: colours, None for the model's own.
        tta: whether to use the config's test-time augmentation.
        score_threshold: least score, 0-1.
        topk: detections an image at most.
        as_json: print JSON instead of tables.
        configs: folder of today's configs, for the error about one of the old generation.

    Raises:
        FileNotFoundError: the checkpoint or the config does not exist.
        OSError: the folder for the output cannot be made.
        ValueError: OpenMMLab is missing, or the detector cannot be built; the message says why.
    """
    device = check_device(device)
    files, inference, loading = _import_detection()
    limits = {"score_threshold": score_threshold, "topk": topk}
    answers: list[dict[str, Any]] = []
    exit_code = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries; what matters here is an error
        # What is said about the user's own settings matters as well.
        warnings.filterwarnings("always", OWN_WARNINGS, UserWarning)
        warnings.showwarning = partial(_show_warning, program)
        detector = inference.build_detector(
            checkpoint,
            config,
            device=device,
            palette=palette,
            tta=tta,
            cfg_options=loading.read_options(cfg_options),
            configs=configs,
        )
        if not as_json:
            _print_head(detector)
        for answer in files.detect_files(detector, inputs, output, **limits):
            if isinstance(answer, files.Failure):
                exit_code = report(program, answer.error)
                answers.append({"input": str(answer.source), "error": str(answer.error)})
                continue
            answers.append(answer)
            if not as_json:
                _print_answer(answer)
    if as_json:
        content = {
            "checkpoint": detector.checkpoint,
            "config": detector.config,
            "class_names": list(detector.class_names),
            "tta": tta,
            **limits,
            "answers": answers,
        }
        print(json.dumps(content, indent=2, allow_nan=False))
    return exit_code


def _show_warning(program: str, message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, where Python would show the line of code as well."""
    print(f"{program}: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _import_detection() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Import what needs OpenMMLab; what its packages print while they load is dropped.

    Raises:
        ValueError: a package is missing, or mmcv was installed without its operators.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from internimage.integrations.openmmlab.prediction import (
                detect_files,
                detector,
                loading,
            )
    except ImportError as error:
        raise ValueError(describe_missing(error)) from error
    return detect_files, detector, loading


def _print_head(detector: Detector) -> None:
    names = len(detector.class_names) or "unknown"
    print(
        f"checkpoint: {detector.checkpoint}\nconfig: {detector.config}\nnames of classes: {names}"
    )


def _print_answer(answer: dict[str, Any]) -> None:
    if "video" in answer:
        print(
            f"\n{answer['video']}: {answer['frames']} frames, {answer['detections']} detections"
            f"\n  {answer['picture']}\n  {answer['answers']}"
        )
        return
    print(f"\n{answer['image']} -> {answer['picture']}")
    print(f"  {'score':>6}  {'left':>7} {'top':>7} {'right':>7} {'bottom':>7}  class")
    for found in answer["detections"]:
        box = " ".join(f"{value:>7.1f}" for value in found["bbox"])
        print(f"  {found['score']:>6.3f}  {box}  {found['class_name'] or found['label']}")
