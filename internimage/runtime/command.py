"""The command ``internimage run``: exported models on images.

Exit codes: 0 done, 2 bad input (one line on stderr says which; the other images are still done),
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from internimage.answer_files import (
    VIDEO_SUFFIXES,
    Failure,
    Task,
    find_files,
    plan,
    predict_image,
)
from internimage.answers import Label, print_classes, print_detections, print_labels
from internimage.cli_arguments import positive, rate
from internimage.files import write_atomically
from internimage.image import load_image
from internimage.runtime import load_model
from internimage.runtime.classification import TOPK, Classifier
from internimage.runtime.detection import SCORE_THRESHOLD, Detector
from internimage.runtime.segmentation import Segmentor
from internimage.runtime.sessions import BACKENDS
from internimage.script import BAD_INPUT, Parser

AnyModel = Classifier | Detector | Segmentor

STOPPED = 128 + signal.SIGINT
"""The exit code after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None, *, program: str = "internimage.runtime") -> int:
    """Run the command line of ``python -m internimage.runtime``; return the exit code.

    Args:
        arguments: None takes those of this process.
        program: what to call the program: ``internimage run`` is the same.
    """
    parser = Parser(program, "Exported models on images, without PyTorch.")
    add_run_arguments(parser)
    warnings.showwarning = partial(_show_warning, program)
    try:
        exit_code = run_images(parser.parse_known(arguments), program=program)
        if sys.stdout is not None:  # None where the shell closed it (`>&-`)
            sys.stdout.flush()
    except BrokenPipeError:
        return discard_output()
    except (ValueError, OSError, ImportError) as error:
        return report(program, error)
    except KeyboardInterrupt:
        return report_stop(program)
    return exit_code


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="an exported model")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image, or folder of images")
    add_answer_arguments(parser)
    parser.add_argument(
        "--backend", choices=BACKENDS, default="onnxruntime", help="default: onnxruntime"
    )
    parser.add_argument("--threads", type=positive, help="of one run; default: the backend's own")
    parser.add_argument(
        "--library",
        type=Path,
        metavar="LIB.so",
        help="the operator, for files exported with --operator node; default: ops_dcnv3's",
    )


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments that say what is answered, and where."""
    parser.add_argument("--output", type=Path, help="folder for pictures and JSON")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--topk", type=positive, help=f"labels an image (default {TOPK}), or detections at most"
    )
    parser.add_argument(
        "--score-threshold",
        type=rate,
        help=f"of detections, 0-1 (default {SCORE_THRESHOLD})",
    )


def run_images(options: argparse.Namespace, *, program: str = "internimage run") -> int:
    """Load a model, answer about images, print the answers, return the exit code.

    Args:
        options: of :func:`add_run_arguments`.
        program: what to call the program in errors.

    Raises:
        FileNotFoundError: the model or the library does not exist.
        ImportError: the backend is not installed.
        OSError: the folder for the output cannot be made.
        ValueError: the file is no exported model, or cannot be loaded.
    """
    model = load_model(
        options.model,
        backend=options.backend,
        threads=options.threads,
        library=options.library,
    )
    return answer_images(model, options, program=program, head=f"{options.model}")


def answer_images(model: AnyModel, options: argparse.Namespace, *, program: str, head: str) -> int:
    """Answer about images, print the answers, return the exit code.

    One image that cannot be read costs the others nothing.

    Args:
        model: an exported model, or an engine built from one.
        options: ``images`` and the arguments of :func:`add_answer_arguments`.
        program: what to call the program in errors.
        head: what to call the model's file.

    Raises:
        OSError: the folder for the output cannot be made.
        ValueError: an option does not go with the model's task.
    """
    _take_limits(model, options, program)
    metadata = model.metadata
    settings = f"{metadata.model}, {metadata.task}, {metadata.precision}"
    if not options.json:
        print(f"{head}: {settings}")
    answers: list[dict[str, Any]] = []
    exit_code = 0
    for answer in _answers(model, options):
        if isinstance(answer, Failure):
            exit_code = report(program, answer.error)
            answers.append({"image": str(answer.source), "error": str(answer.error)})
            continue
        answers.append(answer)
        if not options.json:
            _print_answer(answer)
    if options.json:
        content = {
            "file": head,
            "model": metadata.model,
            "task": metadata.task,
            "class_names": list(metadata.classes),
            "answers": answers,
        }
        print(json.dumps(content, indent=2, allow_nan=False))
    return exit_code


def _take_limits(model: AnyModel, options: argparse.Namespace, program: str) -> None:
    """Hand the options on to a detector; warn about those that have no effect."""
    if isinstance(model, Detector):
        if options.score_threshold is not None:
            model.score_threshold = options.score_threshold
            # The file has left out what scores less, and nothing here can bring it back.
            least = model.metadata.score_threshold
            if least is not None and options.score_threshold < least:
                _warn(
                    program,
                    f"--score-threshold below {least:g} has no effect: {model.metadata.model} "
                    "reports nothing that scores less",
                )
        model.topk = options.topk
        return
    # A classifier takes --topk, in _answers().
    without_effect = ["--score-threshold"] if options.score_threshold is not None else []
    if isinstance(model, Segmentor) and options.topk is not None:
        without_effect.append("--topk")
    if without_effect:
        _warn(program, f"{', '.join(without_effect)} has no effect on {model.metadata.task}")


def _answers(model: AnyModel, options: argparse.Namespace) -> Iterator[dict[str, Any] | Failure]:
    """Yield what the JSON file about each image holds, or why there is none."""
    output: Path | None = options.output
    tasks: Iterable[Task | Path | Failure]
    if output is None:  # nothing is written, and no names can clash
        tasks = find_files(options.images)
    else:
        output.mkdir(parents=True, exist_ok=True)
        tasks = plan(options.images, output, label_maps=model.has_label_maps)
    for task in tasks:
        if isinstance(task, Failure):
            yield task
            continue
        source = task.source if isinstance(task, Task) else task
        try:
            _refuse_video(source)
            if isinstance(model, Classifier):  # which has nothing to draw
                yield _classify(model, options.topk or TOPK, task)
            elif isinstance(task, Task):
                yield predict_image(model, task)
            else:
                yield _look(model, task)
        except (ValueError, OSError) as error:
            yield Failure(source=source, error=error)
        except MemoryError:  # one huge picture, behind which the next may fit
            yield Failure(source=source, error=ValueError(f"out of memory on {source}"))


def _classify(model: Classifier, topk: int, task: Task | Path) -> dict[str, Any]:
    source = task.source if isinstance(task, Task) else task
    labels = model.predict(source, topk=topk)
    row = {"image": str(source), "labels": [dataclasses.asdict(one) for one in labels]}
    if isinstance(task, Task):
        text = json.dumps(row, indent=2, allow_nan=False)
        write_atomically(task.answers, lambda path: path.write_text(f"{text}\n", encoding="utf-8"))
    return row


def _look(model: Detector | Segmentor, source: Path) -> dict[str, Any]:
    """Return what the JSON file would hold, the files' names left out."""
    image = np.asarray(load_image(source))  # (H, W, 3), red first; answer() takes blue first
    found = model.answer(image[..., ::-1]).found
    return {"image": str(source), "width": image.shape[1], "height": image.shape[0], **found}


def _refuse_video(source: Path) -> None:
    if source.suffix.lower() in VIDEO_SUFFIXES:
        raise ValueError(
            f"answer_images: expected an image, got the video {source}; `internimage detect` and "
            "`internimage segment` take videos"
        )


def _print_answer(answer: dict[str, Any]) -> None:
    if "labels" in answer:
        print_labels(answer["image"], [Label(**one) for one in answer["labels"]])
    elif "detections" in answer:
        print_detections(answer)
    else:
        print_classes(answer)


def _show_warning(program: str, message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, where Python would show the line of code as well."""
    _warn(program, " ".join(str(message).split()))


def _warn(program: str, text: str) -> None:
    print(f"{program}: warning: {text}", file=sys.stderr)


def report(program: str, error: BaseException) -> int:
    """Print an error as one line on stderr; return the exit code of bad input."""
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return BAD_INPUT


def discard_output() -> int:
    """Drop all further output, whose reader (`| head`) has gone; return the exit code."""
    # Python would flush once more at exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def report_stop(program: str) -> int:
    """Say in one line on stderr that Ctrl-C has come; return the exit code of that."""
    print(f"{program}: stopped by SIGINT", file=sys.stderr)
    return STOPPED
