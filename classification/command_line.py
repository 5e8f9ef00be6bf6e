"""What the scripts of this folder share: flags to settings, mistakes as one line."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from classification.config import nearest_hint
from classification.distributed import report_to_launcher

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
        self.add_argument("--batch-size", metavar="N", help="images a rank: DATA.BATCH_SIZE")
        self.add_argument(
            "--opts", nargs="+", default=[], metavar="KEY VALUE", help="any other settings"
        )

    def parse_known(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parses the command line.

        Raises:
            ValueError: A flag is unknown (the message names the nearest one) or lacks its value.
        """
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            hint = nearest_hint(unknown[0], list(self._option_string_actions))
            raise ValueError(f"expected known flags, got {' '.join(unknown)}{hint}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print.

        Raises:
            ValueError: Always.
        """
        raise ValueError(message)


def fail(name: str, text: str) -> int:
    """Reports a mistake on the first rank and to torchrun; returns the exit code."""
    report_to_launcher(f"error: {text}")  # whichever rank torchrun notices first
    say(name, f"error: {text}")
    return BAD_INPUT


def say(name: str, text: str) -> None:
    """Prints a line on the first rank: the others make the same mistakes."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{name}: {text}", file=sys.stderr)
