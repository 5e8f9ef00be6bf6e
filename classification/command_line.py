"""What the scripts of this folder share: flags to settings, mistakes as one line, stop signals."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from classification.config import nearest_hint
from classification.distributed import (
    StoppedError,
    end_ranks,
    raise_on_stop_signals,
    report_to_launcher,
)
from classification.engine import DivergedError

BAD_INPUT = 2


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
    try:
        try:
            script()
        except (ValueError, OSError, DivergedError) as error:
            text = f"error: {' '.join(str(error).split())}{hint()}"
            report_to_launcher(text)  # whichever rank torchrun notices first
            _say(name, text)
            return BAD_INPUT
    except StoppedError as stopped:
        _say(name, f"{stopped}{hint()}")
        return stopped.exit_code
    end_ranks()
    return 0


def _say(name: str, text: str) -> None:
    """Prints a line on the first rank: the others make the same mistakes."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{name}: {text}", file=sys.stderr)
