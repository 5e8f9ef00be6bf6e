"""One-to-one choices at the least cost."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from internimage.integrations.openmmlab.driving.assignment import assign


@pytest.mark.parametrize("seed", range(5))
def test_a_choice_is_the_cheapest_of_all(seed: int) -> None:
    cost = torch.rand(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows, columns = assign(cost)
    assert sorted(columns.tolist()) == [0, 1, 2] and len(set(rows.tolist())) == 3
    best = min(sum(cost[row, i] for i, row in enumerate(p)) for p in permutations(range(5), 3))
    assert cost[rows, columns].sum() == pytest.approx(float(best))


def test_costs_that_are_no_numbers_are_chosen_last() -> None:
    cost = torch.tensor([[torch.nan, 5.0], [torch.nan, torch.nan], [1.0, 2.0]])
    rows, columns = assign(cost)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (2, 0)]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_is_chosen_where_there_is_nothing(shape: tuple[int, int]) -> None:
    rows, columns = assign(torch.zeros(shape))
    assert rows.tolist() == columns.tolist() == []
    assert rows.dtype == columns.dtype == torch.int64
