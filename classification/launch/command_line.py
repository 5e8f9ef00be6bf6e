"""What the scripts of this folder share: flags to settings, mistakes as one line, stop signals."""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import torch

from classification.config import nearest_hint
from classification.distributed import (
    StoppedError,
    end_ranks,
    is_lost_rank,
    raise_on_stop_signals,
    report_to_launcher,
)
from classification.results import BadFilesError, DivergedError
from classification.runs.logs import LOGGER

BAD_INPUT = 2

SECONDS_FOR_A_WORD = 2.0

MISTAKES = (ValueError, OSError, ImportError, DivergedError, BadFilesError)
"""What ends a script with one line: of the user's making, or of the disk's."""


class Parser(argparse.ArgumentParser):
    """A parser that raises mistakes as ValueError and knows no abbreviations.

    Args:
        name: The script's name.
        description: What it does, a sentence.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=name, description=description, allow_abbrev=False)
        self.add_argument("--cfg", required=True, metavar="YAML", help="the settings")
        self.add_argument(
            "--opts", nargs="+", default=[], metavar="KEY VALUE", help="any other settings"
        )

    def parse_known(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parses the command line.

        Raises:
            ValueError: A flag is unknown (the message names the nearest one) or lacks its value,
                or ``--opts`` are no pairs.
        """
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            hint = nearest_hint(unknown[0], list(self._option_string_actions))
            raise ValueError(f"expected known flags, got {' '.join(unknown)}{hint}")
        if len(parsed.opts) % 2:  # here, where only what was typed is in the list
            raise ValueError(f"expected KEY VALUE pairs in --opts, got {' '.join(parsed.opts)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print.

        Raises:
            ValueError: Always.
        """
        raise ValueError(message)


def run_script(
    name: str, script: Callable[[], None], *, hint: Callable[[], str] = lambda: ""
) -> int:
    """Runs a script on this rank and returns its exit code.

    Args:
        name: The script's name.
        script: All of its work. What it builds is out of use when it returns: see ``end_ranks``.
        hint: What follows the line about a mistake or a stop.
    """
    raise_on_stop_signals()
    warnings.showwarning = partial(_show_warning, name)
    try:
        try:
            script()
        except MISTAKES as error:
            return _fail(name, f"{' '.join(str(error).split())}{hint()}")
        except torch.OutOfMemoryError as error:
            text = "out of memory; a smaller --batch-size (with --accumulation-steps), "
            text += f"--use-checkpoint or --strategy fsdp need less{hint()}: "
            return _fail(name, text + str(error).split(". ")[0])
        except RuntimeError as error:
            if not is_lost_rank(error):
                raise
            text = f"another rank has ended, its log_rank file or its own message says why{hint()}"
            return _fail(name, text)
    except StoppedError as stopped:
        LOGGER.warning("%s", stopped)
        _say(name, f"{stopped}{hint()}")
        return stopped.exit_code
    end_ranks()
    return 0


def _fail(name: str, reason: str) -> int:
    """Says why a script ends, to all who may be listening; returns the exit code."""
    text = f"error: {reason}"
    LOGGER.error("%s", text, exc_info=True)  # the file has room for where it came from
    report_to_launcher(text)  # whichever rank torchrun notices first
    _say(name, text)
    if _rank() != 0:
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:
            # Under srun nobody else shows what befell this rank alone, such as its own disk.
            _print(f"{name}: rank {_rank()}: {text}")
        # torchrun stops the other ranks when one has left: the first one is to have its say before.
        time.sleep(SECONDS_FOR_A_WORD)
    return BAD_INPUT


def _say(name: str, text: str) -> None:
    """Prints a line on the first rank: the others would say the same."""
    if _rank() == 0:
        _print(f"{name}: {text}")


def _print(text: str) -> None:
    # In one piece: the lines of several ranks may meet.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _show_warning(
    name: str, message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    """Shows a warning as one line, where Python would show the line of code as well."""
    kind = "warning" if category is UserWarning else category.__name__
    _say(name, f"{kind}: {' '.join(str(message).split())}")
