"""Schema, fake kernels and autograd registration of every registered operator."""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import Case, deterministic_algorithms, run
from torch.utils._python_dispatch import TorchDispatchMode

import ops_dcnv3
from ops_dcnv3 import ops, reference_ops

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
        deterministic = False
        upstream = case.grad_output(dtype)
        return (upstream, *tensors, *case.static_arguments, case.softmax, deterministic)
    return (*(t.requires_grad_() for t in tensors), *case.static_arguments, case.softmax)


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
    output = ops.dcnv3_packed(*leaves, case.static_arguments, case.softmax)
    grad_input, grad_packed = torch.autograd.grad(output, leaves, case.grad_output())
    for ours, theirs in (
        (output, expected[0]),
        (grad_input, expected[1]),
        (grad_packed, torch.cat(expected[2:], -1)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


def packed_results(packed: torch.Tensor, case: Case, run_reference: bool) -> tuple:
    """Output and the gradients of input and packed tensor, by the kernels or their fallback."""
    image, upstream = case.tensors(packed.dtype)[0], case.grad_output(packed.dtype)
    if run_reference:
        static = (*case.static_arguments, case.softmax)
        output = reference_ops.dcnv3_packed(image, packed, *static)
        return output, *reference_ops.dcnv3_packed_backward(upstream, image, packed, *static, False)
    leaves = [image.requires_grad_(), packed.detach().requires_grad_()]
    output = ops.dcnv3_packed(*leaves, case.static_arguments, case.softmax)
    return output, *torch.autograd.grad(output, leaves, upstream)


@pytest.mark.parametrize("padding", [1, 5, 29])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_padding_of_the_packed_tensor_is_ignored_and_gets_a_gradient_of_zeros(
    operator, case, dtype, padding
):
    """Linear layers run faster with a multiple of 8 features; NaN there must reach nothing."""
    run_reference = operator is ops_dcnv3.dcnv3_reference
    packed = torch.cat(case.tensors(dtype)[1:], -1)
    expected = packed_results(packed, case, run_reference)
    shape = (*packed.shape[:3], padding)
    padded = torch.cat([packed, packed.new_full(shape, torch.nan)], -1)
    for strided in (padded, torch.cat([padded, padded], -1)[..., : padded.shape[-1]]):
        output, grad_input, grad_packed = packed_results(strided, case, run_reference)
        assert torch.equal(output, expected[0]) and torch.equal(grad_input, expected[1])
        assert grad_packed.shape == padded.shape
        assert torch.equal(grad_packed[..., :-padding], expected[2])
        assert torch.equal(grad_packed[..., -padding:], torch.zeros(shape, dtype=dtype))


def test_a_packed_tensor_that_is_too_narrow_is_refused(operator):
    case = CASES[0]
    packed = torch.cat(case.tensors()[1:], -1)[..., :-1]
    with pytest.raises(RuntimeError):
        packed_results(packed, case, operator is ops_dcnv3.dcnv3_reference)


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_backward_pass_is_told_of_pytorchs_deterministic_mode(enabled, create_graph):
    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "_backward" in str(func):
                told.append(args[-1])
            return func(*args, **(kwargs or {}))

    told = []
    case = CASES[0]
    tensors, packed = case.tensors(), torch.cat(case.tensors()[1:], -1)
    outputs = [
        ops_dcnv3.dcnv3(tensors[0].requires_grad_(), *tensors[1:], **case.settings),
        ops.dcnv3_packed(tensors[0], packed, case.static_arguments, case.softmax),
    ]
    with deterministic_algorithms(enabled), Recorder():
        for output in outputs:
            torch.autograd.grad(output, tensors[0], case.grad_output(), create_graph=create_graph)
    assert told == [enabled, enabled]


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
        grads = torch.ops.ops_dcnv3.dcnv3_backward(empty[0], image, *empty[1:], *static, False)
        assert torch.equal(grads[0], torch.zeros_like(image))
        assert [grad.shape for grad in grads[1:]] == [tensor.shape for tensor in empty[1:]]
