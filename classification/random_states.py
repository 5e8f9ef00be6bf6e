"""The random states of a rank: seeded an epoch at a time, saved and taken up in between."""

import random
from typing import Any

import numpy as np
import torch

from classification.distributed import Ranks


def seed_everything(seed: int, ranks: Ranks, *, epoch: int = 0) -> None:
    """Seeds Python, NumPy and PyTorch for one epoch on one rank.

    Every (seed, epoch, rank) has random states of its own, independent of what was drawn before: an
    epoch that follows a resume draws what it would have drawn in an unbroken run.
    """
    # SeedSequence spreads the three numbers: neighbours give unrelated states.
    state = np.random.SeedSequence((seed, epoch, ranks.rank)).generate_state(1, dtype=np.uint64)[0]
    random.seed(int(state))
    np.random.seed(int(state % 2**32))
    torch.manual_seed(int(state))


def get_random_states(device: torch.device) -> dict[str, Any]:
    """Returns the states of Python, NumPy and PyTorch (CPU and ``device``), as plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    words = torch.from_numpy(np.asarray(keys).astype(np.int64))  # uint32 is hardly a dtype there
    return {
        "python": random.getstate(),
        "numpy": (name, words, position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Takes up what ``get_random_states`` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
