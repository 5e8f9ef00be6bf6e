"""One-to-one choices at the least cost: what each query of a head learns."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_NO_NUMBER = 1e6
"""The cost that stands in for one that is no number."""


def assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and columns, index by index, that belong together at the least cost.

    Each row and each column occurs once at most, and the smaller of the two kinds is used up.

    Args:
        cost: (rows, columns).
    """
    # SciPy refuses what is no number; but diverged weights shall end in a loss that is none, which
    # training reports.
    finite = np.nan_to_num(cost.detach().cpu().numpy(), nan=_NO_NUMBER)
    rows, columns = (
        torch.as_tensor(chosen, device=cost.device) for chosen in linear_sum_assignment(finite)
    )
    return rows, columns
