"""A run that is small enough for a test."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from classification.config import get_config
from classification.train import main

SMALL_RUN = """
AMP_OPT_LEVEL: O0
LOGGER: none
DATA: {DATASET: digits, IMG_SIZE: 16, BATCH_SIZE: 128, NUM_WORKERS: 0}
MODEL: {ARCH: internimage_test_t, DROP_PATH_RATE: 0.0}
TRAIN: {EPOCHS: 2, WARMUP_EPOCHS: 0, BASE_LR: 1.0e-2, EMA: {ENABLE: True, DECAY: 0.8}}
AUG: {ROTATE: 5.0, TRANSLATE: 0.05, REPROB: 0.0, MIXUP: 0.0, CUTMIX: 0.0}
"""


@pytest.fixture
def small_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_RUN, encoding="utf-8")
    return path


@pytest.fixture
def make_config(small_yaml: Path, tmp_path: Path) -> Callable[..., CfgNode]:
    """The small run's settings with ``KEY, VALUE, ...`` on top; it writes to tmp_path/out."""

    def make(*options: object) -> CfgNode:
        return get_config(small_yaml, ["OUTPUT", str(tmp_path / "out"), *map(str, options)])

    return make


@pytest.fixture
def exit_code_here() -> Iterator[Callable[..., int]]:
    """train.py in this process; pytest's own handling of signals comes back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments: object) -> int:
        return main([str(argument) for argument in arguments])

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors are faster on one thread, and the machine may run other things."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
