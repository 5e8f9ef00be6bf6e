"""A script's process among others: stop signals, torchrun above it, the end.

PyTorch is not imported here: scripts that run exported models have none.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

# "Save and leave": from kill, torchrun and schedulers. Windows has no SIGUSR1.
REQUESTS = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class StoppedError(KeyboardInterrupt):
    """A signal asked to stop.

    It can be raised anywhere: in PyTorch's exporter, which takes any Exception for a fault of the
    model, or in a loader's worker, which leaves without a word at a KeyboardInterrupt alone.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


def raise_on_stop_signals() -> None:
    """Let SIGINT, SIGTERM and SIGUSR1 raise ``StoppedError`` in the main thread.

    torchrun passes signals on to every rank. Each rank leaves on its own, without a word to the
    others: a rank that waits in a collective is woken by the connection that its peer closes.
    """

    def stop(signal_number: int, _frame: FrameType | None) -> None:
        # A second signal while leaving would only garble the message.
        for number in (signal.SIGINT, *REQUESTS):
            signal.signal(number, signal.SIG_IGN)
        raise StoppedError(signal_number)

    for number in (signal.SIGINT, *REQUESTS):
        signal.signal(number, stop)


class StopRequest:
    """Notes SIGTERM and SIGUSR1 in a block instead of raising at once; SIGINT still raises.

    Schedulers send them some time before they end a job, and often twice: to the launcher, which
    passes them on, and to every process.
    """

    def __init__(self) -> None:
        self.signal_number = 0

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.getsignal(number) for number in REQUESTS}
        for number in REQUESTS:
            signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error or a stop the process leaves: a late request must not disturb that.
        for number, handler in self._before.items():
            signal.signal(number, handler if kind is None else signal.SIG_IGN)

    def _note(self, signal_number: int, _frame: FrameType | None) -> None:
        self.signal_number = self.signal_number or signal_number


def die_with_the_launcher() -> None:
    """Ask Linux to kill this rank when torchrun is killed, who could not pass the signal on.

    Its ranks would train on unseen, in the folder in which the restarted command trains as well.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether an error of a collective says that another rank has ended."""
    dist = _distributed()
    if dist is None:
        return False
    if isinstance(error, (dist.DistNetworkError, dist.DistBackendError)):
        return True
    signs = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")
    return dist.is_initialized() and any(sign in str(error) for sign in signs)


def report_to_launcher(text: str) -> None:
    """Hand the reason of a failure to torchrun, which prints it below its own messages.

    torchrun names a file in the environment; PyTorch's own writer of it adds a stack trace, which
    would bury a line about a wrong setting.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        content = {"message": {"message": text, "extraInfo": extra}}
        Path(path).write_text(json.dumps(content), encoding="utf-8")


def leave(exit_code: int) -> NoReturn:
    """End the process; after an error or a signal at once.

    Whoever leaves in the middle of an epoch may have a collective under way, which no other rank
    will join: an orderly end would wait for it.
    """
    dist = _distributed()
    if exit_code and dist is not None and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def _distributed() -> Any:
    """Return ``torch.distributed`` if it has been imported: else there is no other rank."""
    return sys.modules.get("torch.distributed")
