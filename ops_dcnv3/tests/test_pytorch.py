"""The operator under torch.compile, torch.export, torch.func, autocast and checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from dcnv3_cases import Case, assert_all_close, run, run_oracle
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import ops_dcnv3

CASE = Case(height=6, width=7, group_channels=8, softmax=True)
AUTOCAST_DTYPES = [torch.bfloat16, torch.float16]


class Layer(nn.Module):
    """The operator with fixed settings, as something to compile and export."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.settings = case.settings

    def forward(self, image: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return ops_dcnv3.dcnv3(image, offset, mask, **self.settings)


@pytest.mark.slow
@pytest.mark.inductor
def test_compile_of_the_full_graph_with_dynamic_shapes_gives_the_same_numbers():
    torch._dynamo.reset()
    compiled = torch.compile(Layer(CASE), fullgraph=True, dynamic=True)
    for case in (CASE, Case(batch=3, height=9, width=4, group_channels=8, softmax=True)):
        tensors, grad_output = case.tensors(), case.grad_output()
        expected = run(ops_dcnv3.dcnv3, tensors, grad_output, case.settings)
        actual = run(lambda *t, **_: compiled(*t), tensors, grad_output, {})
        assert_all_close(actual, expected, tolerance=1e-12)


@pytest.mark.slow
@pytest.mark.inductor
def test_compile_keeps_the_operator_in_one_graph_around_other_code():
    torch._dynamo.reset()
    module = ops_dcnv3.DCNv3(channels=16, group=2).double()
    randomise(module)
    compiled = torch.compile(module, fullgraph=True)
    gradients = []
    for layer in (module, compiled):
        x = torch.linspace(-2, 2, 960, dtype=torch.float64).view(2, 5, 6, 16).requires_grad_()
        layer(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.inductor
@torch.no_grad()  # with gradients, inductor of PyTorch 2.13 fails on the convolution, not on DCNv3
def test_compile_of_a_layer_with_dynamic_shapes_gives_the_same_numbers():
    torch._dynamo.reset()
    module = ops_dcnv3.DCNv3(channels=16, group=2).double()
    randomise(module)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for shape in ((2, 5, 6, 16), (3, 8, 4, 16)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=1e-12)


def test_an_exported_program_can_be_saved_and_loaded(tmp_path):
    tensors = CASE.tensors()
    names = ("batch", "height", "width")
    dynamic = {axis: torch.export.Dim(name, max=64) for axis, name in enumerate(names)}
    program = torch.export.export(Layer(CASE), tensors, dynamic_shapes=(dynamic,) * 3)
    assert "ops_dcnv3.dcnv3.default" in str(program.graph)
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    other = Case(batch=3, height=9, width=4, group_channels=8, softmax=True)
    for case in (CASE, other):
        given = case.tensors()
        assert torch.equal(loaded(*given), ops_dcnv3.dcnv3(*given, **case.settings))


@pytest.mark.parametrize("dtype", AUTOCAST_DTYPES, ids=lambda d: str(d)[6:])
def test_autocast_decides_the_dtype_of_the_output(dtype):
    tensors = CASE.tensors(torch.float32)
    exact = ops_dcnv3.dcnv3_reference(*(t.double() for t in tensors), **CASE.settings)
    with torch.autocast("cpu", dtype):
        output = ops_dcnv3.dcnv3(*tensors, **CASE.settings)
    assert output.dtype == dtype
    rounding = torch.finfo(dtype).eps * exact.abs().max()
    assert (output.double() - exact).abs().max() < 2 * rounding


@pytest.mark.parametrize("dtype", AUTOCAST_DTYPES, ids=lambda d: str(d)[6:])
def test_autocast_keeps_float32_offsets_exact(dtype):
    """Offsets of 8 to 16 pixels have a step of 1/16 pixel in bfloat16: they must not be rounded."""
    image, offset, mask = CASE.tensors(torch.float32, spread=6.0)
    with torch.autocast("cpu", dtype):
        output = ops_dcnv3.dcnv3(image, offset, mask, **CASE.settings)
    assert torch.equal(output, ops_dcnv3.dcnv3(image.to(dtype), offset, mask, **CASE.settings))


@pytest.mark.parametrize("dtype", AUTOCAST_DTYPES, ids=lambda d: str(d)[6:])
def test_autocast_gives_each_leaf_its_own_dtype_of_gradient(dtype):
    leaves = [t.requires_grad_() for t in CASE.tensors(torch.float32)]
    with torch.autocast("cpu", dtype):
        output = ops_dcnv3.dcnv3(*leaves, **CASE.settings)
    grad_output = CASE.grad_output(dtype)
    output.backward(grad_output)
    doubles = tuple(t.detach().double() for t in leaves)
    exact = run(ops_dcnv3.dcnv3_reference, doubles, grad_output.double(), CASE.settings)[1:]
    for leaf, truth in zip(leaves, exact, strict=True):
        assert leaf.grad.dtype == torch.float32
        bound = 4 * torch.finfo(dtype).eps * truth.abs().max()
        assert (leaf.grad.double() - truth).abs().max() < bound


@pytest.mark.parametrize("dtype", AUTOCAST_DTYPES, ids=lambda d: str(d)[6:])
def test_autocast_holds_under_func_and_forward_mode_too(dtype):
    image, offset, mask = CASE.tensors(torch.float32)
    call = partial(ops_dcnv3.dcnv3, offset=offset, mask=mask, **CASE.settings)
    with torch.autocast("cpu", dtype):
        plain = call(image)
        mapped = torch.vmap(call)(image[None])[0]
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(image, torch.ones_like(image))
            primal = forward_ad.unpack_dual(call(dual)).primal
    assert plain.dtype == mapped.dtype == primal.dtype == dtype
    for output in (mapped, primal):
        bound = 2 * torch.finfo(dtype).eps * plain.abs().max()
        assert (output.float() - plain.float()).abs().max() < bound


def test_func_grad_compiles():
    torch._dynamo.reset()
    image, offset, mask = CASE.tensors(torch.float64)

    def gradient(x: Tensor) -> Tensor:
        loss = torch.func.grad(lambda y: ops_dcnv3.dcnv3(y, offset, mask, **CASE.settings).sum())
        return loss(x)

    compiled = torch.compile(gradient, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), gradient(image))


def test_autocast_leaves_float64_alone():
    tensors = CASE.tensors(torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        output = ops_dcnv3.dcnv3(*tensors, **CASE.settings)
    assert torch.equal(output, ops_dcnv3.dcnv3(*tensors, **CASE.settings))


@pytest.mark.parametrize("dtype", AUTOCAST_DTYPES, ids=lambda d: str(d)[6:])
def test_the_module_trains_under_autocast(dtype):
    module = ops_dcnv3.DCNv3(channels=32, group=2)
    randomise(module)
    x = torch.randn(2, 5, 6, 32)
    exact = module.double()(x.double())
    module.float()
    with torch.autocast("cpu", dtype):
        output = module(x)
        loss = output.square().mean()
    loss.backward()
    assert output.dtype == dtype
    assert (output.double() - exact).abs().max() < 0.05 * exact.abs().max()
    for parameter in module.parameters():
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()


def tangents_by_func(function: Callable[..., Tensor], primals: tuple, tangents: tuple) -> Tensor:
    """Directional derivative by torch.func.jvp."""
    return torch.func.jvp(function, primals, tangents)[1]


def tangents_by_dual_numbers(
    function: Callable[..., Tensor], primals: tuple, tangents: tuple
) -> Tensor:
    """Directional derivative by torch.autograd.forward_ad."""
    with forward_ad.dual_level():
        duals = map(forward_ad.make_dual, primals, tangents)
        return forward_ad.unpack_dual(function(*duals)).tangent


@pytest.mark.parametrize("forward_mode", [tangents_by_func, tangents_by_dual_numbers])
@pytest.mark.parametrize("softmax", [False, True])
def test_the_forward_derivative_is_that_of_the_reference(operator, forward_mode, softmax):
    case = replace(CASE, softmax=softmax)
    primals = case.tensors()
    tangents = tuple(torch.randn_like(t) for t in primals)
    actual = forward_mode(partial(operator, **case.settings), primals, tangents)
    reference = partial(ops_dcnv3.dcnv3_reference, **case.settings)
    expected = forward_mode(reference, primals, tangents)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    # <upstream, J tangent> = <J^T upstream, tangent>, where J^T is the oracle's
    upstream = case.grad_output()
    gradients = run_oracle(primals, upstream, case)[1:]
    transposed = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    torch.testing.assert_close((upstream * actual).sum(), transposed, rtol=1e-9, atol=1e-9)


def test_the_forward_derivative_goes_through_the_layer():
    module = ops_dcnv3.DCNv3(channels=16, group=2).double()
    randomise(module)
    x, tangent = torch.randn(2, 1, 5, 6, 16, dtype=torch.float64)
    step = 1e-6 * tangent
    difference = (module(x + step) - module(x - step)).detach() / 2e-6
    for forward_mode in (tangents_by_func, tangents_by_dual_numbers):
        actual = forward_mode(module, (x,), (tangent,))
        torch.testing.assert_close(actual, difference, rtol=1e-6, atol=1e-6)


def test_func_grad_gives_the_gradients_of_backward(operator):
    tensors, grad_output = CASE.tensors(), CASE.grad_output()
    expected = run(operator, tensors, grad_output, CASE.settings)[1:]

    def loss(*leaves: Tensor) -> Tensor:
        return (operator(*leaves, **CASE.settings) * grad_output).sum()

    gradients = torch.func.grad(loss, argnums=(0, 1, 2))(*tensors)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, 0, None)], ids=str)
def test_vmap_equals_a_loop(operator, in_dims):
    samples = [CASE.tensors(seed=seed) for seed in range(3)]
    tensors = [
        torch.stack([sample[k] for sample in samples], dim) if dim is not None else samples[0][k]
        for k, dim in enumerate(in_dims)
    ]
    actual = torch.vmap(partial(operator, **CASE.settings), in_dims)(*tensors)
    shared = [(*s[:2], samples[0][2]) if in_dims[2] is None else s for s in samples]
    expected = torch.stack([operator(*sample, **CASE.settings) for sample in shared])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_vmap_of_grad_gives_the_gradients_of_each_sample(operator):
    tensors, grad_output = CASE.tensors(), CASE.grad_output()
    expected = run(operator, tensors, grad_output, CASE.settings)[1]

    def loss(image: Tensor, offset: Tensor, mask: Tensor, upstream: Tensor) -> Tensor:
        one = (image[None], offset[None], mask[None])
        return (operator(*one, **CASE.settings)[0] * upstream).sum()

    actual = torch.vmap(torch.func.grad(loss))(*tensors, grad_output)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_inference_mode_and_no_grad_give_the_same_output(operator):
    tensors = CASE.tensors()
    expected = operator(*(t.requires_grad_() for t in tensors), **CASE.settings)
    assert expected.requires_grad
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            output = operator(*tensors, **CASE.settings)
        assert not output.requires_grad
        assert torch.equal(output, expected)


def test_gradient_checkpointing_gives_the_same_gradients(operator):
    def checkpointed(*tensors: Tensor, **settings) -> Tensor:
        return checkpoint(lambda *t: operator(*t, **settings), *tensors, use_reentrant=False)

    tensors, grad_output = CASE.tensors(), CASE.grad_output()
    expected = run(operator, tensors, grad_output, CASE.settings)
    for ours, theirs in zip(
        run(checkpointed, tensors, grad_output, CASE.settings), expected, strict=True
    ):
        assert torch.equal(ours, theirs)


def randomise(module: nn.Module) -> None:
    """Give every parameter a value; a fresh layer has zero offsets and would hide errors."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
