"""What PyTorch does around an operator: compiling, autocast, loss scaling, opcheck, the layer."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from dcnv3_cases import Case
from torch import Tensor

import ops_dcnv3

from .compare import DTYPES, name_of
from .table import Skip, add

CASE = Case(batch=2, height=14, width=13, groups=4, group_channels=16, softmax=True)
SIZES = ((2, 14, 13), (3, 7, 20), (4, 9, 9))  # N, H, W: later ones are new to a compiled function
LOW = (torch.float16, torch.bfloat16)


def around(operator: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The operator between operations that a compiler generates code for."""
    image, offset, mask = tensors
    return torch.tanh(operator(image * 0.5, offset, mask, **CASE.settings)) * 2


def with_gradients(function: Callable[..., Tensor], tensors) -> tuple[Tensor, ...]:
    """Value and gradients of the sum of squares."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    output = function(*leaves)
    return (output.detach(), *torch.autograd.grad(output.square().sum(), leaves))


def why_not_inductor(device: torch.device) -> str:
    """What torch.compile's own backend lacks here; empty if nothing."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return "torch.compile needs a C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "torch.compile needs Python's headers"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile needs Triton"
    return ""


def compiled(device: torch.device, *, backend: str, dynamic: bool, mode: str | None = None) -> None:
    """One graph, the reference's numbers, and with `dynamic` for sizes that come later too."""
    if backend == "inductor" and (reason := why_not_inductor(device)):
        raise Skip(reason)
    torch._dynamo.reset()
    function = torch.compile(
        partial(around, ops_dcnv3.dcnv3),
        backend=backend,
        dynamic=dynamic,
        fullgraph=True,
        mode=mode,
    )
    for n, height, width in SIZES if dynamic else SIZES[:1]:
        case = Case(n, height, width, 4, 16, softmax=True)
        tensors = [t.to(device) for t in case.tensors(torch.float32)]
        exact = with_gradients(
            partial(around, ops_dcnv3.dcnv3_reference), [t.double() for t in tensors]
        )
        for _ in range(3):  # graphs of `reduce-overhead` are captured in the second call
            actual = [t.clone() for t in with_gradients(function, tensors)]
            for ours, truth in zip(actual, exact, strict=True):
                bound = 1e-4 * truth.abs().max().item()
                torch.testing.assert_close(ours.double(), truth, rtol=0, atol=bound)
    torch._dynamo.reset()


def autocast(device: torch.device, *, dtype: torch.dtype) -> None:
    """The region decides the dtype of the output; float32 offsets stay exact."""
    image, offset, mask = (t.to(device) for t in CASE.tensors(torch.float32, spread=6.0))
    leaves = [t.requires_grad_() for t in (image, offset, mask)]
    with torch.autocast(device.type, dtype):
        output = ops_dcnv3.dcnv3(*leaves, **CASE.settings)
    assert output.dtype == dtype
    rounded = image.detach().to(dtype)
    exact = ops_dcnv3.dcnv3_reference(
        rounded.double(), offset.detach().double(), mask.detach().double(), **CASE.settings
    )
    # offsets rounded to 16 bits would be up to 1/32 pixel off, an error beyond this one
    bound = 2 * torch.finfo(dtype).eps * exact.abs().max()
    assert (output.detach().double() - exact).abs().max() <= bound
    output.float().square().sum().backward()
    for leaf in leaves:
        assert leaf.grad.dtype == torch.float32 and torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() > 0


def make_layer(device: torch.device, **settings: object) -> ops_dcnv3.DCNv3:
    """A layer with random offsets and logits; a fresh one has zeros."""
    torch.manual_seed(0)
    layer = ops_dcnv3.DCNv3(channels=64, group=4, **settings)
    for part in (layer.offset, layer.mask):
        torch.nn.init.normal_(part.weight, std=0.1)
        torch.nn.init.uniform_(part.bias, -1, 1)
    return layer.to(device)


def loss_scaling(device: torch.device, *, dtype: torch.dtype) -> None:
    """A step with a GradScaler trains; one whose scaled loss overflows is skipped."""
    layer = make_layer(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    x = torch.randn(2, 12, 10, 64, device=device)
    losses = []
    for factor, taken in ((1.0, True), (2.0**127, False), (1.0, True)):
        scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10)
        before = [p.detach().clone() for p in layer.parameters()]
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype):
            loss = layer(x).float().square().mean()
        scaler.scale(loss * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        changed = [not torch.equal(p, b) for p, b in zip(layer.parameters(), before, strict=True)]
        assert all(changed) if taken else not any(changed), f"loss times {factor}: {changed}"
        losses.append(loss.item())
    assert losses[-1] < losses[0], losses


def layer(device: torch.device, *, dtype: torch.dtype, settings: dict[str, object]) -> None:
    """The layer and all its gradients as exact as the same layer on the PyTorch reference.

    Mean errors: the offsets here are rounded on their way, and where one crosses an integer its
    gradient jumps, in either implementation at another place.
    """
    ours = make_layer(device, **settings).to(dtype)
    x = torch.randn(2, 15, 12, 64).to(device, dtype)

    def results(module: ops_dcnv3.DCNv3, dtype: torch.dtype, operator) -> list[Tensor]:
        module = copy.deepcopy(module).to(dtype)
        leaf = x.detach().to(dtype, copy=True).requires_grad_()
        if operator is not None:  # on the reference, with the offsets and logits unpacked
            module._sample = lambda value, control: operator(  # type: ignore[method-assign]
                value,
                *module.offsets_and_logits(control),
                kernel_size=3,
                groups=4,
                offset_scale=module.geometry.offset_scale,
                remove_center=module.geometry.remove_center,
                softmax=True,
            )
        output = module(leaf)
        output.square().sum().backward()
        return [output.detach(), leaf.grad, *(p.grad for p in module.parameters())]

    exact = results(ours, torch.float64, ops_dcnv3.dcnv3_reference)
    pytorch = results(ours, dtype, ops_dcnv3.dcnv3_reference)
    for theirs, actual, truth in zip(pytorch, results(ours, dtype, None), exact, strict=True):
        error = (actual.double() - truth).abs().mean()
        rounding = (1e-10 if dtype == torch.float64 else torch.finfo(dtype).eps) * truth.abs().max()
        allowed = 2 * (theirs.double() - truth).abs().mean() + rounding
        assert error <= allowed, f"mean error {error:.3e}, allowed {allowed:.3e}"


def opcheck(device: torch.device, *, name: str, dtype: torch.dtype) -> None:
    """Schema, fake kernel and autograd registration, by PyTorch's own checker."""
    case = Case(height=5, width=4, groups=2, group_channels=16, softmax=True)
    image, offset, mask = (t.to(device) for t in case.tensors(dtype))
    tensors = [image, torch.cat([offset, mask], -1)] if "packed" in name else [image, offset, mask]
    arguments = [*case.static_arguments, case.softmax]
    if "backward" in name:
        tensors.insert(0, case.grad_output(dtype).to(device))
        arguments.append(False)  # deterministic
    else:
        tensors = [t.requires_grad_() for t in tensors]
    operator = getattr(torch.ops.ops_dcnv3, name).default
    torch.library.opcheck(operator, (*tensors, *arguments))


for _dynamic in (False, True):
    for _backend in ("aot_eager", "inductor"):
        add(
            f"compile/{_backend}/{'dynamic' if _dynamic else 'static'}",
            partial(compiled, backend=_backend, dynamic=_dynamic),
            slow=_backend == "inductor",
        )
add(
    "compile/inductor/reduce-overhead",
    partial(compiled, backend="inductor", dynamic=False, mode="reduce-overhead"),
    needs_cuda=True,
    slow=True,
)
for _dtype in LOW:
    add(f"autocast/{name_of(_dtype)}", partial(autocast, dtype=_dtype))
    add(f"loss-scaling/{name_of(_dtype)}", partial(loss_scaling, dtype=_dtype))
_SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"center_feature_scale": True, "dw_kernel_size": 5},
    {"remove_center": True, "offset_scale": 2.0},
)
for _dtype in DTYPES:
    for _settings in _SETTINGS:
        _name = ",".join(f"{key}={value}" for key, value in _settings.items()) or "default"
        add(f"layer/{name_of(_dtype)}/{_name}", partial(layer, dtype=_dtype, settings=_settings))
for _name in ("dcnv3", "dcnv3_backward", "dcnv3_packed", "dcnv3_packed_backward"):
    for _dtype in (torch.float32, torch.float64):
        _function = partial(opcheck, name=_name, dtype=_dtype)
        add(f"opcheck/{_name}/{name_of(_dtype)}", _function)
