"""Schema, fake kernels and autograd registration of every registered operator."""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import Case, run

import ops_dcnv3
from ops_dcnv3.ops import dcnv3_packed

CASES = [
    Case(height=4, width=5, group_channels=4),
    Case(height=5, width=5, group_channels=3, stride=2, softmax=True, remove_center=True),
]
NAMES = ["dcnv3", "dcnv3_backward", "dcnv3_packed", "dcnv3_packed_backward"]


def samples(name: str, case: Case, dtype: torch.dtype) -> tuple:
    """Arguments of one registered operator."""
    image, offset, mask = case.tensors(dtype)
    packed = "packed" in name
    tensors = [image, torch.cat([offset, mask], -1)] if packed else [image, offset, mask]
    if "backward" in name:
        tensors.insert(0, case.grad_output(dtype))
    else:
        tensors = [t.requires_grad_() for t in tensors]
    return (*tensors, *case.static_arguments, case.softmax)


def registered_names() -> list[str]:
    """Names of everything in `torch.ops.ops_dcnv3`."""
    schemas = torch._C._jit_get_all_schemas()
    prefix = "ops_dcnv3::"
    return sorted({s.name.removeprefix(prefix) for s in schemas if s.name.startswith(prefix)})


def test_the_registered_operators_are_the_ones_tested_here():
    assert registered_names() == NAMES


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, case, dtype):
    operator = getattr(torch.ops.ops_dcnv3, name).default
    torch.library.opcheck(operator, samples(name, case, dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("contiguous", [True, False])
def test_the_packed_operator_equals_the_plain_one(case, contiguous):
    image, offset, mask = case.tensors()
    expected = run(ops_dcnv3.dcnv3, (image, offset, mask), case.grad_output(), case.settings)
    packed = torch.cat([offset, mask], -1)
    if not contiguous:
        packed = packed.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    leaves = [image.requires_grad_(), packed.detach().requires_grad_()]
    output = dcnv3_packed(*leaves, case.static_arguments, case.softmax)
    grad_input, grad_packed = torch.autograd.grad(output, leaves, case.grad_output())
    for ours, theirs in (
        (output, expected[0]),
        (grad_input, expected[1]),
        (grad_packed, torch.cat(expected[2:], -1)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_the_fakes_tell_shape_and_dtype_on_meta(name):
    case = Case(height=9, width=6, stride=2, group_channels=4)
    real = samples(name, case, torch.bfloat16)
    operator = getattr(torch.ops.ops_dcnv3, name).default
    expected = operator(*real)
    actual = operator(*(a.to("meta") if isinstance(a, torch.Tensor) else a for a in real))
    expected = expected if isinstance(expected, tuple) else (expected,)
    actual = actual if isinstance(actual, tuple) else (actual,)
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.shape, ours.dtype, ours.stride()) == (
            theirs.shape,
            theirs.dtype,
            theirs.stride(),
        )
        assert ours.device.type == "meta"


def test_an_output_without_rows_leaves_a_gradient_of_zeros():
    """The function refuses such sizes; who calls the registered operator gets no stale memory."""
    case = CASES[0]
    grad_output, image, offset, mask = (case.grad_output(), *case.tensors())
    empty = [tensor[:, :0].contiguous() for tensor in (grad_output, offset, mask)]
    static = (*case.static_arguments, case.softmax)
    for _ in range(20):  # memory that was just freed holds numbers
        torch.full_like(image, 7.0)
        grads = torch.ops.ops_dcnv3.dcnv3_backward(empty[0], image, *empty[1:], *static)
        assert torch.equal(grads[0], torch.zeros_like(image))
        assert [grad.shape for grad in grads[1:]] == [tensor.shape for tensor in empty[1:]]
