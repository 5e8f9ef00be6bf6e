"""What is said where OpenMMLab, which all tasks but classification need, is not installed."""

import contextlib
import sys
from collections.abc import Iterator

from internimage.script import BAD_INPUT

INSTALL = (
    "in the checkout `make setup-all`, whose Python is .venv/bin/python, or by hand "
    "`pip install '.[openmmlab]'` behind "
    '`pip install "$(python tools/build_mmcv.py)"`; docs/install.md has more'
)


def describe_missing(error: ImportError) -> str:
    """Return the line about an import of OpenMMLab that failed, with the command that helps."""
    return (
        f"expected OpenMMLab (mmengine, mmcv with its operators, mmdet, mmseg), got "
        f"{type(error).__name__}: {error}; to install it: {INSTALL}"
    )


@contextlib.contextmanager
def openmmlab_needed(program: str) -> Iterator[None]:
    """End the program with one line and exit code 2 where an import within the block fails.

    Args:
        program: the script's name, which the line begins with.
    """
    try:
        yield
    except ImportError as error:
        print(f"{program}: error: {describe_missing(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
