"""What the scripts of this folder share: flags to settings, mistakes as one line, stop signals."""

import argparse
from collections.abc import Callable, Sequence

from classification.distributed import end_ranks
from classification.results import BadFilesError
from classification.runs.logs import LOGGER
from internimage import script as scripts

MISTAKES = (*scripts.MISTAKES, BadFilesError)
"""What ends a script with one line: of the user's making, or of the disk's."""


class Parser(scripts.Parser):
    """A parser with ``--cfg`` and ``--opts``.

    Args:
        name: The script's name.
        description: What it does, a sentence.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, description)
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
        parsed = super().parse_known(arguments)
        if len(parsed.opts) % 2:  # here, where only what was typed is in the list
            raise ValueError(f"expected KEY VALUE pairs in --opts, got {' '.join(parsed.opts)}")
        return parsed


def run_script(
    name: str, script: Callable[[], None], *, hint: Callable[[], str] = lambda: ""
) -> int:
    """Runs a script on this rank and returns its exit code.

    Args:
        name: The script's name.
        script: All of its work. What it builds is out of use when it returns: see ``end_ranks``.
        hint: What follows the line about a mistake or a stop.
    """

    def work() -> None:
        script()
        end_ranks()

    return scripts.run_script(
        name,
        work,
        mistakes=MISTAKES,
        memory_advice="a smaller --batch-size (with --accumulation-steps), --use-checkpoint or "
        "--strategy fsdp need less",
        hint=hint,
        log=_log,
    )


def _log(text: str, is_error: bool) -> None:
    if is_error:
        LOGGER.error("%s", text, exc_info=True)  # the file has room for where it came from
    else:
        LOGGER.warning("%s", text)
