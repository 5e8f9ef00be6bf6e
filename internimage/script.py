"""What scripts share: a parser that raises, mistakes as one line, the exit code.

PyTorch is not imported here: scripts that run exported models have none.
"""

import argparse
import difflib
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from internimage.processes import (
    StoppedError,
    is_lost_rank,
    raise_on_stop_signals,
    report_to_launcher,
)

BAD_INPUT = 2

SECONDS_FOR_A_WORD = 2.0


class DivergedError(Exception):
    """The loss, its gradient or the weights are no longer finite."""


MISTAKES = (ValueError, OSError, ImportError, DivergedError)
"""What ends any script with one line: of the user's making, or of the disk's."""


class Parser(argparse.ArgumentParser):
    """A parser that raises mistakes as ValueError and knows no abbreviations.

    Args:
        name: The script's name.
        description: What it does, a sentence.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=name, description=description, allow_abbrev=False)

    def parse_known(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse the command line.

        Raises:
            ValueError: A flag is unknown (the message names the nearest one) or lacks its value.
        """
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            hint = nearest_hint(unknown[0], list(self._option_string_actions))
            raise ValueError(f"expected known flags, got {' '.join(unknown)}{hint}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            ValueError: Always.
        """
        raise ValueError(message)


def nearest_hint(word: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean X?"`` for the known word nearest to ``word``, else nothing."""
    by_lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[matches[0]]}?" if matches else ""


def run_script(
    name: str,
    script: Callable[[], None],
    *,
    mistakes: tuple[type[Exception], ...] = MISTAKES,
    memory_advice: str,
    hint: Callable[[], str] = lambda: "",
    log: Callable[[str, bool], None] = lambda text, is_error: None,
) -> int:
    """Run a script on this rank and return its exit code.

    Args:
        name: The script's name.
        script: All of its work.
        mistakes: What ends it with one line.
        memory_advice: What needs less memory, for the line about too little of it.
        hint: What follows the line about a mistake or a stop.
        log: Takes the line, and whether the error at hand is to go with it, to the log file.
    """
    raise_on_stop_signals()
    warnings.showwarning = partial(_show_warning, name)

    def fail(reason: str) -> int:
        text = f"error: {reason}"
        log(text, True)
        return _end(name, text)

    try:
        try:
            script()
        except mistakes as error:
            return fail(f"{' '.join(str(error).split())}{hint()}")
        except RuntimeError as error:
            if _is_out_of_memory(error):
                return fail(f"out of memory; {memory_advice}{hint()}: {str(error).split('. ')[0]}")
            if not is_lost_rank(error):
                raise
            return fail(
                f"another rank has ended, its log_rank file or its own message says why{hint()}"
            )
    except StoppedError as stopped:
        log(str(stopped), False)
        _say(name, f"{stopped}{hint()}")
        return stopped.exit_code
    return 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _end(name: str, text: str) -> int:
    """Say why a script ends, to all who may be listening; return the exit code."""
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
    """Print a line on the first rank: the others would say the same."""
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
    """Show a warning as one line, where Python would show the line of code as well."""
    kind = "warning" if category is UserWarning else category.__name__
    _say(name, f"{kind}: {' '.join(str(message).split())}")
