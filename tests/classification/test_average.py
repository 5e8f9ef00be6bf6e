"""The moving average of tensors, and its place in the model."""

import pytest
import torch
from torch import nn

from classification.average import WeightAverage


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_average_moves_towards_the_tensors(dtype: torch.dtype):
    tensors = [torch.tensor([1.0, 2.0], dtype=dtype), torch.tensor([[3.0]], dtype=dtype)]
    average = WeightAverage(tensors, decay=0.75)
    expected = [tensor.double() for tensor in tensors]
    for step in range(5):
        for i, tensor in enumerate(tensors):
            tensor += 0.5 * step
            expected[i] = 0.75 * expected[i] + 0.25 * tensor.double()
        average.update()
    for value, wanted in zip(average.averages, expected, strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=0)


def test_small_changes_of_16_bit_weights_are_not_lost():
    tensor = torch.zeros(1, dtype=torch.bfloat16)
    average = WeightAverage([tensor], decay=0.9999)
    tensor += 1
    for _ in range(1000):
        average.update()
    assert average.averages[0].item() == pytest.approx(1 - 0.9999**1000, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_within_the_block_the_model_has_the_average_and_afterwards_its_own(dtype: torch.dtype):
    model = nn.Linear(2, 2).to(dtype)
    average = WeightAverage(list(model.parameters()), decay=0.5)
    with torch.no_grad():
        model.weight += 1
    average.update()
    own, mean = model.weight.detach().clone(), average.averages[0].clone()
    for _ in range(2):
        with average.in_place():
            assert torch.equal(model.weight, mean.to(dtype))
        assert torch.equal(model.weight, own)
        assert torch.equal(average.averages[0], mean)


def test_an_error_in_the_block_leaves_the_model_with_its_own():
    tensor = torch.ones(3)
    average = WeightAverage([tensor], decay=0.5)
    tensor += 1
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert tensor.tolist() == [2, 2, 2]
    assert average.averages[0].tolist() == [1, 1, 1]


def test_what_the_block_writes_goes_into_the_average():
    statistic = torch.ones(1)
    average = WeightAverage([statistic], decay=0.5)
    with average.in_place():
        statistic.fill_(7)
    assert (statistic.item(), average.averages[0].item()) == (1, 7)


def test_a_restarted_average_has_the_present_values():
    tensor = torch.ones(1)
    average = WeightAverage([tensor], decay=0.5)
    tensor.fill_(4)
    average.restart()
    assert average.averages[0].item() == 4
