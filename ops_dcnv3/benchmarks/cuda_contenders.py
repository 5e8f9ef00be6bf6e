"""What is timed on a GPU: our kernels, our Triton path, and what they are to beat.

A contender is made from one layer and several sets of arguments and gives a call for each set. Its
first results are compared with ours before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from competitors import torchvision_arguments, torchvision_path
from cuda_timing import Call
from goals import FORWARD
from original_design import OriginalDesign
from torch import Tensor
from workloads import Layer, forward_only, normalised

import ops_dcnv3
from ops_dcnv3 import ops, reference

TOLERANCE = {torch.float32: 1e-3}  # of the largest number; others:
LOW_TOLERANCE = 3e-2


class Arguments(NamedTuple):
    """One set; the gradient of the output comes last."""

    image: Tensor  # (N, H, W, C)
    offset: Tensor  # (N, H, W, G*18)
    logits: Tensor  # (N, H, W, G*9)
    grad_output: Tensor  # (N, H, W, C)


Results = Callable[[object], tuple[Tensor, ...]]
Make = Callable[[Layer, str, Arguments], Call]


@dataclass(frozen=True)
class Contender:
    """How to call one implementation."""

    name: str
    make: Make
    # what of its results is comparable with (output,) or (grad_input, grad_offset, grad_logits)
    results: Results = lambda value: value if isinstance(value, tuple) else (value,)
    captured: bool = True  # else it is timed behind a sleeping kernel, with one set of arguments


def geometry_of(layer: Layer) -> reference.Geometry:
    """The static arguments of a 3 x 3 kernel."""
    return reference.Geometry(3, 3, 1, 1, 1, 1, 1, 1, layer.groups, 1.0, False)


def ours(layer: Layer, direction: str, a: Arguments) -> Call:
    """The operator as users call it, its backward as autograd calls it; softmax inside."""
    if direction == FORWARD:
        operation = partial(ops_dcnv3.dcnv3, groups=layer.groups, softmax=True)
        return forward_only(operation, *a[:3])
    operator = torch.ops.ops_dcnv3.dcnv3_backward.default
    static = (*geometry_of(layer), True, False)
    return partial(operator, a.grad_output, a.image, a.offset, a.logits, *static)


def packed(layer: Layer, direction: str, a: Arguments) -> Call:
    """The entry of the layer: offsets and logits in one tensor, padded to 8 numbers a pixel."""
    joint = torch.cat([a.offset, a.logits], -1)
    joint = F.pad(joint, (0, -joint.shape[-1] % 8))
    if direction == FORWARD:
        return forward_only(ops.dcnv3_packed, a.image, joint, geometry_of(layer), True)
    operator = torch.ops.ops_dcnv3.dcnv3_packed_backward.default
    return partial(operator, a.grad_output, a.image, joint, *geometry_of(layer), True, False)


def packed_results(layer: Layer, value: object) -> tuple[Tensor, ...]:
    """The joint gradient in its parts, the padding left out."""
    if isinstance(value, Tensor):
        return (value,)
    grad_image, grad_joint = value  # type: ignore[misc]
    widths = [layer.groups * 18, layer.groups * 9]
    grad_offset, grad_logits = grad_joint[..., : sum(widths)].split(widths, -1)
    return grad_image, grad_offset, grad_logits


def triton(layer: Layer, direction: str, a: Arguments) -> Call:
    """The Triton kernels, whatever serves the device otherwise."""
    from ops_dcnv3 import triton_ops

    geometry = geometry_of(layer)
    if direction == FORWARD:
        return partial(triton_ops.OPERATORS["dcnv3"], *a[:3], *geometry, True)
    operator = triton_ops.OPERATORS["dcnv3_backward"]
    return partial(operator, a.grad_output, *a[:3], *geometry, True, False)


def plain_pytorch(layer: Layer, direction: str, a: Arguments) -> Call:
    """The reference."""
    geometry = geometry_of(layer)
    if direction == FORWARD:
        return forward_only(reference.forward, *a[:3], geometry, True)
    return partial(reference.backward, a.grad_output, *a[:3], geometry, True)


def original(design: OriginalDesign, layer: Layer, direction: str, a: Arguments) -> Call:
    """The original's kernel design with the softmax before it."""
    if direction == FORWARD:
        return partial(design.forward, *a[:3], groups=layer.groups)
    mask = normalised(a.logits, layer.groups)
    return partial(design.backward, a.grad_output, a.image, a.offset, mask, groups=layer.groups)


def dcnv4(layer: Layer, direction: str, a: Arguments) -> Call:
    """DCNv4's operator on normalised weights; it has no softmax, whose cost is left out."""
    from DCNv4.functions import DCNv4Function

    groups = layer.groups
    grouped = [
        a.offset.unflatten(-1, (groups, 18)),
        a.logits.unflatten(-1, (groups, 9)).softmax(-1),
    ]
    joint = torch.cat(grouped, -1).flatten(-2)  # each group: 18 offsets, then 9 weights
    joint = F.pad(joint, (0, -joint.shape[-1] % 8))
    static = (3, 3, 1, 1, 1, 1, 1, 1, groups, layer.channels // groups, 1.0, 256, 0)
    return by_autograd(
        lambda image, joint: DCNv4Function.apply(image, joint, *static),
        direction,
        (a.image, joint),
        a.grad_output,
    )


def torchvision(layer: Layer, direction: str, a: Arguments) -> Call:
    """`deform_conv2d` as a depth-wise sum of the same points, everything reordered before."""
    mask = normalised(a.logits, layer.groups)
    image, weight, offset, mask = torchvision_arguments(
        a.image, a.offset, mask, groups=layer.groups
    )
    upstream = a.grad_output.permute(0, 3, 1, 2).contiguous()
    return by_autograd(
        lambda image, offset, mask: torchvision_path(image, weight, offset, mask),
        direction,
        (image, offset, mask),
        upstream,
    )


def channels_last_results(value: object) -> tuple[Tensor, ...]:
    """Of torchvision: the first result, channels last."""
    first = value[0] if isinstance(value, tuple) else value
    return (first.permute(0, 2, 3, 1),)  # type: ignore[union-attr]


def first_result(value: object) -> tuple[Tensor, ...]:
    """The output or the gradient of the input, where the others have another order."""
    return (value[0] if isinstance(value, tuple) else value,)  # type: ignore[return-value]


def by_autograd(
    operation: Callable[..., Tensor], direction: str, tensors: Sequence[Tensor], upstream: Tensor
) -> Call:
    """A call of an operation that has no backward of its own to call."""
    if direction == FORWARD:
        return forward_only(operation, *tensors)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = operation(*leaves)
    return partial(torch.autograd.grad, output, leaves, upstream, retain_graph=True)


def eager_ours(layer: Layer, direction: str, a: Arguments) -> Call:
    """Our operator with all that PyTorch does around it."""
    operation = partial(ops_dcnv3.dcnv3, groups=layer.groups, softmax=True)
    return by_autograd(operation, direction, a[:3], a.grad_output)


def same_numbers(
    theirs: tuple[Tensor, ...], expected: tuple[Tensor, ...], dtype: torch.dtype
) -> bool:
    """Whether results agree within the dtype's rounding, as far as they are given."""
    tolerance = TOLERANCE.get(dtype, LOW_TOLERANCE)
    pairs = list(zip(theirs, expected, strict=False))  # some give the first result alone
    return bool(pairs) and all(
        a.shape == b.shape
        and bool((a.double() - b.double()).abs().max() <= tolerance * b.double().abs().max())
        for a, b in pairs
    )
