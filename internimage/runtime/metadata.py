"""What an exported file says of its model: the way of its images, the names of its classes."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from internimage.runtime.checks import (
    check_list,
    check_number,
    check_open_pair,
    check_resize,
    check_share,
    check_text,
    check_whole,
    check_window,
)
from internimage.runtime.format import FORMAT, KEY, TASKS, TaskName
from internimage.runtime.onnx_file import read_property


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """What travels inside an exported file.

    Args:
        task: what the model answers.
        model: its name.
        precision: ``"fp32"`` or ``"fp16"``.
        operator: ``"grid_sample"``, or ``"node"`` of a file that needs the operator's library.
        input_size: height and width of the input in pixels, None where a run may choose.
        batch: images a run, None where a run may choose.
        classes: names of the classes; empty where none are known.
        palette: red, green, blue of each class, 0-255.
        mean: of red, green, blue, 0-255.
        std: their standard deviation, 0-255.
        resize: how an image becomes the input.
        window: of a segmentor that slides: its ``size`` and ``stride``, each (height, width).
        score_threshold: the lowest score that a detector reports, 0-1.
        mask_threshold: the lowest probability of a mask's pixel, 0-1.
    """

    task: TaskName
    model: str
    precision: str
    operator: str
    input_size: tuple[int | None, int | None]
    batch: int | None
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Mapping[str, Any]
    window: Mapping[str, tuple[int, int]] | None
    score_threshold: float | None
    mask_threshold: float | None

    def name_of(self, label: int) -> str | None:
        """Return the name of a class, None if it is not known."""
        return self.classes[label] if label < len(self.classes) else None


def read_metadata(path: str | Path) -> Metadata:
    """Read what an exported file says of its model.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is no ONNX file, or none that this package has exported.
    """
    text = read_property(Path(path), KEY)
    if text is None:
        raise ValueError(
            f"read_metadata: expected an ONNX file of `internimage export`, detection/deploy.py or "
            f"segmentation/deploy.py, got {path} without their metadata"
        )
    return parse_metadata(text, origin=str(path))


def parse_metadata(text: str, *, origin: str) -> Metadata:
    """Read the JSON text of an exported file's metadata.

    Args:
        text: the JSON.
        origin: the file, for errors.

    Raises:
        ValueError: it is of a later format, or none at all.
    """
    try:
        fields = json.loads(text)
        # FORMAT rises only when a field changes its meaning: fields that are not known here come
        # from a later version, and are passed over.
        number = check_whole("format", fields["format"])
        if number > FORMAT:
            raise ValueError(f"format {number}, where {FORMAT} is the newest known here")
        return metadata_of(fields)
    # A list in the place of an object, a field that is missing, brackets within brackets: whatever
    # the file holds, it is one error.
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"parse_metadata: expected metadata of format {FORMAT} in {origin}, got others "
            f"({reason}); a newer format needs a newer internimage"
        ) from error


def metadata_of(fields: Mapping[str, Any]) -> Metadata:
    """Check the fields of metadata, as JSON has them.

    Raises:
        KeyError: one is missing.
        ValueError: one is of another kind, or out of range.
    """
    if fields["task"] not in TASKS:
        raise ValueError(f"task = {fields['task']!r}, where one of {', '.join(TASKS)} stands")
    palette, batch = fields["palette"], fields["batch"]
    return Metadata(
        task=fields["task"],
        model=check_text("model", fields["model"]),
        precision=check_text("precision", fields["precision"]),
        operator=check_text("operator", fields["operator"]),
        input_size=check_open_pair("input_size", fields["input_size"]),
        batch=None if batch is None else check_whole("batch", batch),
        classes=tuple(
            check_text("classes", name) for name in check_list("classes", fields["classes"])
        ),
        palette=None
        if palette is None
        else tuple(_colour(colour) for colour in check_list("palette", palette)),
        mean=_three("mean", fields["mean"]),
        # Above zero, since pixels are divided by it.
        std=_three("std", fields["std"], least=sys.float_info.min),
        resize=check_resize(fields["resize"]),
        window=check_window(fields["window"]),
        score_threshold=check_share("score_threshold", fields["score_threshold"]),
        mask_threshold=check_share("mask_threshold", fields["mask_threshold"]),
    )


def _colour(value: Any) -> tuple[int, int, int]:
    red, green, blue = (
        check_whole("palette", part, least=0, most=255) for part in check_list("palette", value, 3)
    )
    return red, green, blue


def _three(name: str, value: Any, *, least: float = -math.inf) -> tuple[float, float, float]:
    red, green, blue = (check_number(name, one, least=least) for one in check_list(name, value, 3))
    return red, green, blue
