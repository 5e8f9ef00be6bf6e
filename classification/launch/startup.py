"""What must be ready before the slow imports of a script; imports nothing slow itself."""

import os
import signal
import sys
from types import FrameType


def exit_on_ctrl_c(name: str) -> None:
    """Lets Ctrl-C end a script that is still importing with one line and exit code 130.

    The script replaces the handler when it starts to work.

    Args:
        name: The script's name.
    """

    def stop(signal_number: int, _frame: FrameType | None) -> None:
        if os.environ.get("RANK", "0") == "0":
            print(f"{name}: stopped by SIGINT", file=sys.stderr, flush=True)
        # At once: an exception in the middle of an import may be caught there.
        os._exit(128 + signal_number)

    signal.signal(signal.SIGINT, stop)
