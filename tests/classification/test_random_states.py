"""Random states are saved as plain values and taken up again."""

import random
from pathlib import Path

import numpy as np
import torch

from classification.distributed import Ranks
from classification.random_states import get_random_states, seed_everything, set_random_states
from classification.runs.checkpoint import KEYS, load_state, save_state

CPU = torch.device("cpu")


def draw() -> tuple[float, ...]:
    """One number of every kind; Gaussian ones come in pairs, of which one is kept."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(()).item(),
        torch.randn(()).item(),
    )


def test_states_come_back_through_a_file(tmp_path: Path):
    seed_everything(3, Ranks(0, 1, CPU))
    draw()  # an odd number of Gaussian ones: the other of the pair waits
    saved = dict.fromkeys(KEYS) | {"ranks": [get_random_states(CPU)]}
    save_state(tmp_path / "ckpt_epoch_1.pth", saved)
    expected = [draw() for _ in range(3)]
    seed_everything(9, Ranks(0, 1, CPU))
    (states,) = load_state(tmp_path / "ckpt_epoch_1.pth")["ranks"]
    set_random_states(states, CPU)
    assert [draw() for _ in range(3)] == expected
