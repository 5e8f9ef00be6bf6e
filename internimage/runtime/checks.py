"""Checks of values that come from a file: whole numbers, finite ones, texts.

An ONNX file comes from anywhere; what it says of itself is looked at once, before anything is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from internimage.metadata import INTERPOLATIONS
from internimage.runtime.format import OPTIONAL_RESIZE_FIELDS, RESIZE_FIELDS

LARGEST = 2**16
"""Pixels along a side, or images a run, beyond which a number is a mistake."""

OPENCV_FILTER = "cv2_bilinear"
"""OpenCV's bilinear filter of 8-bit images; the others are Pillow's."""


def check_whole(name: str, value: Any, *, least: int = 1, most: int = LARGEST) -> int:
    """Return a whole number.

    Raises:
        ValueError: it is none, or out of range.
    """
    # JSON's true is an int to Python.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} = {value!r}, where a whole number from {least} to {most} stands")
    return value


def check_number(
    name: str, value: Any, *, least: float = -math.inf, most: float = math.inf
) -> float:
    """Return a finite number.

    Raises:
        ValueError: it is none, or out of range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"{name} = {value!r}, where a number from {least:g} to {most:g} stands")
    return float(value)


def check_share(name: str, value: Any) -> float | None:
    """Return a number from 0 to 1, or None.

    Raises:
        ValueError: it is neither.
    """
    return None if value is None else check_number(name, value, least=0, most=1)


def check_text(name: str, value: Any) -> str:
    """Return a text.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} = {value!r}, where a text stands")
    return value


def check_list(name: str, value: Any, length: int | None = None) -> list[Any]:
    """Return a list, of a given length if one is given.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, list) or length not in (None, len(value)):
        kind = "a list" if length is None else f"a list of {length}"
        raise ValueError(f"{name} = {value!r}, where {kind} stands")
    return value


def check_pair(name: str, value: Any) -> tuple[int, int]:
    """Return two whole numbers >= 1.

    Raises:
        ValueError: they are none.
    """
    first, second = check_list(name, value, 2)
    return check_whole(name, first), check_whole(name, second)


def check_open_pair(name: str, value: Any) -> tuple[int | None, int | None]:
    """Return two whole numbers >= 1, each of which may be None.

    Raises:
        ValueError: they are none.
    """
    first, second = (
        None if side is None else check_whole(name, side) for side in check_list(name, value, 2)
    )
    return first, second


def check_window(value: Any) -> Mapping[str, tuple[int, int]] | None:
    """Return size and stride of windows, or None.

    Raises:
        ValueError: they are none, or leave pixels out.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not {"size", "stride"} <= value.keys():
        raise ValueError(f"window = {value!r}, where size and stride stand")
    window = {name: check_pair(f"window.{name}", value[name]) for name in ("size", "stride")}
    # Also what keeps the mean over windows from dividing by zero.
    if any(side < step for side, step in zip(window["size"], window["stride"], strict=True)):
        raise ValueError(f"window = {value!r}, which leaves pixels out")
    return window


def check_resize(value: Any) -> Mapping[str, Any]:
    """Return how an image becomes the input, each field checked and those left out None.

    Raises:
        ValueError: a field is missing or none of its kind.
    """
    mode = value.get("mode") if isinstance(value, dict) else None
    if mode not in RESIZE_FIELDS or not RESIZE_FIELDS[mode] <= set(value):
        raise ValueError(f"resize = {value!r}, where one of {sorted(RESIZE_FIELDS)} stands")
    # The middle of an image is cut out of what Pillow has resized.
    filters = INTERPOLATIONS if mode == "crop" else (OPENCV_FILTER, *INTERPOLATIONS)
    if value["filter"] not in filters:
        raise ValueError(f"resize.filter = {value['filter']!r}, where one of {filters} stands")
    checks: dict[str, Callable[[str, Any], Any]] = {
        "size": check_pair,
        "scale": check_pair,
        "pad_to": check_open_pair,
        "shorter_side": check_whole,
        "pad_divisor": check_whole,
        "multiple_of": check_whole,
        "pad_value": check_number,
    }
    must_be_there = {"size", "shorter_side"}  # null in any other means that it is not done
    resize: dict[str, Any] = {"mode": mode, "filter": value["filter"]}
    for name in (RESIZE_FIELDS[mode] | OPTIONAL_RESIZE_FIELDS) - {"filter"}:
        found = value.get(name)
        is_checked = found is not None or name in must_be_there
        resize[name] = checks[name](f"resize.{name}", found) if is_checked else None
    return resize
