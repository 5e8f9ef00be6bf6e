"""A process that is shown while it runs and ended, with its children, when its time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    status: int | None  # None: ended from here because its time was over
    output: str


def stream(command: list[str], seconds: float, **options: object) -> Ended:
    """Runs a command, shows what it prints, and ends it and its children after so many seconds."""
    print("$ " + " ".join(command), flush=True)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a group of its own, to be ended as a whole
        **options,  # type: ignore[call-overload]
    )
    lines: list[str] = []
    watchdog = Watchdog(process, seconds)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            print(line, end="", flush=True)
        status = process.wait()
    finally:
        watchdog.cancel()
    return Ended(None if watchdog.barked else status, "".join(lines))


class Watchdog:
    """Ends a process group when its time is over."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.process, self.barked = process, False
        self.timer = threading.Timer(max(seconds, 1.0), self.bark)
        self.timer.daemon = True
        self.timer.start()

    def bark(self) -> None:
        """End it."""
        self.barked = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself in this moment
            self.barked = False

    def cancel(self) -> None:
        """It has ended in time; or this script is interrupted, and it must not go on alone."""
        self.timer.cancel()
        if self.process.poll() is None:
            self.bark()
