"""Frames of drives: what one lacks, and their order in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def naming_frame(reader: str, token: str) -> Iterator[None]:
    """Turn what a file's frame lacks, or holds instead, into an error that names the frame.

    Args:
        reader: the data set's class, for the error.
        token: of the frame.

    Raises:
        ValueError: A key is missing, or a value is not of its kind.
    """
    try:
        yield
    except KeyError as error:
        # A KeyError's text is the key.
        raise ValueError(f"{reader}: expected {error} of frame {token}, got none") from None
    except (AttributeError, TypeError, ValueError) as error:
        if f"frame {token}" in str(error):  # whoever raised it was told the name
            raise
        raise ValueError(f"{reader}: expected a whole frame {token}, got {error}") from error


@contextmanager
def naming_file(file: str) -> Iterator[None]:
    """Add the file to an error about one of its frames.

    Raises:
        ValueError: The error.
    """
    try:
        yield
    except ValueError as error:
        if file in str(error):
            raise
        raise ValueError(f"{error}, in {file}") from error


def check_frames(
    reader: str,
    frames: Iterable[Any],
    file: str,
    *,
    name: Callable[[Mapping[str, Any]], object] | None = None,
) -> None:
    """Check that the frames of a file are dictionaries, each with its name.

    Args:
        reader: the data set's class, for the error.
        frames: in the order of the file; an error says the place, from 0, as there may be no name.
        file: for the error.
        name: returns the name of a frame, or raises what ``naming_frame`` turns into an error.

    Raises:
        ValueError: One is something else, or has no name.
    """
    for number, frame in enumerate(frames):
        if not isinstance(frame, Mapping):
            raise ValueError(
                f"{reader}: expected a dictionary for each frame of {file}, got {frame!r:.40} for "
                f"number {number}"
            )
        if name is not None:
            with naming_frame(reader, f"number {number} of {file}"):
                name(frame)


def whole_number(frame: Mapping[str, Any], key: str) -> int:
    """Return a value of a frame as a whole number.

    Raises:
        KeyError: It is missing.
        ValueError: It is none.
    """
    value = frame[key]
    try:
        number = int(value)
        # A text of digits is one, as files may have their times; 1.9 and True are none.
        if not isinstance(value, str) and (number != value or isinstance(value, bool | np.bool_)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r:.40} for {key}, which is no whole number") from None
    return number


def text(frame: Mapping[str, Any], key: str) -> str:
    """Return a value of a frame that is a text.

    Raises:
        KeyError: It is missing.
        ValueError: It is none.
    """
    if not isinstance(frame[key], str):
        raise ValueError(f"{frame[key]!r:.40} for {key}, which is no text")
    return frame[key]


def token_of(frame: Mapping[str, Any]) -> str:
    """Return the token of a frame, by which the frame behind it and submissions name it.

    Raises:
        KeyError: It is missing.
        ValueError: It is no text, or an empty one: ``prev`` says by that that there is no frame.
    """
    if not (token := text(frame, "token")):
        raise ValueError("'' for token, which is empty")
    return token


def dictionary(frame: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a value of a frame that is a dictionary.

    Raises:
        KeyError: It is missing.
        ValueError: It is none.
    """
    if not isinstance(frame[key], Mapping):
        raise ValueError(f"{frame[key]!r:.40} for {key}, which is no dictionary")
    return frame[key]


def check_cameras(reader: str, token: str, found: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Check that a frame has all cameras: the views attend to each by its place in the order.

    Raises:
        ValueError: One is missing, or is no dictionary.
    """
    missing = [camera for camera in needed if camera not in found]
    if missing:
        raise ValueError(
            f"{reader}: expected {len(needed)} cameras in frame {token}, got none of "
            f"{', '.join(missing)}"
        )
    for camera in needed:
        if not isinstance(found[camera], Mapping):
            raise ValueError(
                f"{reader}: expected a dictionary for {camera} of frame {token}, got "
                f"{found[camera]!r:.40}"
            )


def order_frames(frames: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return frames scene by scene, in the order of their time, each linked to the one before.

    Scenes keep the order of their first frame. A ``prev`` that is missing, or that names a frame
    outside of the set, becomes the frame before in the same scene; ``""`` says that there is none,
    and stays.

    Args:
        frames: each with ``token``, ``scene``, ``timestamp`` and maybe ``prev``; changed in place.

    Raises:
        ValueError: A token or a time of a scene occurs twice, or ``prev`` names another frame of
            the set than the one before: the frames' times are out of order.
    """
    scenes: dict[str, list[dict[str, Any]]] = {}
    tokens: set[str] = set()
    for frame in frames:
        if frame["token"] in tokens:
            raise ValueError(f"order_frames: expected each token once, got {frame['token']} again")
        tokens.add(frame["token"])
        scenes.setdefault(frame["scene"], []).append(frame)
    for scene, members in scenes.items():
        # Files need not be in order; times are, within a scene.
        members.sort(key=lambda frame: frame["timestamp"])
        _link(scene, members, tokens)
    return [frame for members in scenes.values() for frame in members]


def _link(scene: str, members: Sequence[dict[str, Any]], tokens: set[str]) -> None:
    before = None
    for frame in members:
        if before is not None and before["timestamp"] == frame["timestamp"]:
            raise ValueError(
                f"order_frames: expected one frame of {scene} a time, got {before['token']} and "
                f"{frame['token']} at {frame['timestamp']}"
            )
        expected = before["token"] if before is not None else ""
        named = frame.get("prev")
        # Else a model would take another frame than the one before for its history, without any
        # error.
        if named in tokens and named != expected:
            raise ValueError(
                f"order_frames: expected frames of {scene} in the order of their times, got "
                f"{frame['token']}, which follows {named} by name and {expected or 'none'} by time"
            )
        # A name outside of the set is of a frame that was left out: the one before stands in.
        if named != "":
            frame["prev"] = expected
        before = frame
