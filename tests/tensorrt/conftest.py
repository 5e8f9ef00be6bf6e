"""The scripts of tensorrt/ find each other as they do from a shell: by their own folder."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tensorrt"))


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """What a script does about signals ends with it; pytest's own handling comes back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
