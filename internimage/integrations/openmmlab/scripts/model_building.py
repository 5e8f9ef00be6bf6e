"""Models built from configs, where a setting that does not fit is a line that names the part."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS

# What parts of mmcv, mmdet and PyTorch raise about a number or a kind that they cannot take.
_ABOUT_SETTINGS = (AssertionError, TypeError, RuntimeError, ArithmeticError, AttributeError)


def build_model(config: Any) -> Any:
    """Build the model of a config; see :func:`naming_part`."""
    with naming_part():
        return MODELS.build(config)


@contextmanager
def naming_part() -> Iterator[None]:
    """Turn what goes wrong while parts of a model are built into an error that names the part.

    Raises:
        ValueError: A part does not take its settings.
    """
    try:
        yield
    except _ABOUT_SETTINGS as error:
        part = _innermost_part(error)
        # Where memory ends, or no part was being built, nobody has made a mistake in a setting.
        if part is None or "out of memory" in str(error):
            raise
        if part in str(error):  # a text of our own, or about an unknown argument
            raise ValueError(str(error)) from error
        # A bare assert has no words: its line of source says what was expected.
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f": {' '.join(str(error).split())}" if str(error) else f" ({last.line})"
        raise ValueError(
            f"expected settings that {part} of the model can be built with, got "
            f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}{reason}"
        ) from error


def _innermost_part(error: BaseException) -> str | None:
    """Return the type of the part that a registry was building last."""
    part = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        # The function of mmengine through which every part is built.
        config = frame.f_locals.get("cfg") if frame.f_code.co_name == "build_from_cfg" else None
        if isinstance(config, Mapping) and "type" in config:
            kind = config["type"]
            part = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return part
