"""The boundary of the operator: checks, schema, fake, kernels' registration, autograd and autocast.

Everything that PyTorch needs to know of DCNv3 stands here; :mod:`ops_dcnv3.reference` holds the
maths and the shape legend, ``csrc/`` the compiled kernels. Two pairs of operators are registered
under ``torch.ops.ops_dcnv3``: ``dcnv3`` with separate offsets and weights, and ``dcnv3_packed``,
which takes both as they leave one linear layer and so needs no copy to part them.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import backends, reference
from .layers import is_autocast_on
from .reference import Geometry, IntPair

_GEOMETRY = (
    "int kernel_h, int kernel_w, int stride_h, int stride_w, int padding_h, int padding_w, "
    "int dilation_h, int dilation_w, int groups, float offset_scale, bool remove_center, "
    "bool softmax"
)
_NUM_STATIC = 12  # the arguments in _GEOMETRY; those of a backward operator have one more
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_MOST_MAPS = 8  # in which a backward pass adds up the gradient of the input, in any kernel

_library = torch.library.Library("ops_dcnv3", "DEF")
_library.define(f"dcnv3(Tensor input, Tensor offset, Tensor mask, {_GEOMETRY}) -> Tensor")
_library.define(
    f"dcnv3_backward(Tensor grad_output, Tensor input, Tensor offset, Tensor mask, {_GEOMETRY}, "
    "bool deterministic) -> (Tensor, Tensor, Tensor)"
)
_library.define(f"dcnv3_packed(Tensor input, Tensor offset_mask, {_GEOMETRY}) -> Tensor")
_library.define(
    f"dcnv3_packed_backward(Tensor grad_output, Tensor input, Tensor offset_mask, {_GEOMETRY}, "
    "bool deterministic) -> (Tensor, Tensor)"
)


def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    kernel_size: IntPair = 3,
    stride: IntPair = 1,
    padding: IntPair = 1,
    dilation: IntPair = 1,
    groups: int,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
) -> Tensor:
    """Deformable convolution v3: every output pixel sums K learned points per channel group.

    The definition, the order of the points, borders and the derivative at integer coordinates are
    in :mod:`ops_dcnv3.reference`. Calculates in float64 for float64 input and in float32 for all
    others, but for the CUDA kernels, some of which interpolate 16-bit input in its own format: see
    "Precision" in docs/dcnv3.md.

    Args:
        input: (N, H, W, C), channels last; float64, float32, bfloat16 or float16.
        offset: (N, Ho, Wo, G*P*2), x before y, in input pixels; in the dtype of ``input`` or
            float32.
        mask: (N, Ho, Wo, G*P), the weights of the points, or their logits with ``softmax``; in the
            dtype of ``offset``.
        kernel_size: K, or (K_h, K_w).
        stride: Step between output pixels, input pixels.
        padding: Pixels that the grid of output pixels extends beyond each border.
        dilation: Distance between neighbouring points of the undeformed grid, pixels.
        groups: G, must divide C.
        offset_scale: Multiplies both the undeformed grid and the learned offset.
        remove_center: Leaves out the middle point; needs an odd kernel.
        softmax: Normalises ``mask`` over the P points of each group inside the operator.

    Returns:
        (N, Ho, Wo, C) in the dtype of ``input``.

    Raises:
        TypeError: If a tensor argument is not a tensor, or a number is of the wrong kind.
        ValueError: If a rank, shape, dtype or device does not fit, or the output would be empty.
    """
    geometry = _check(
        "dcnv3", input, offset, mask, kernel_size, stride, padding, dilation, groups,
        offset_scale, remove_center, softmax,
    )  # fmt: skip
    return _call(torch.ops.ops_dcnv3.dcnv3.default, (input, offset, mask), geometry, softmax)


def dcnv3_packed(input: Tensor, offset_mask: Tensor, geometry: Geometry, softmax: bool) -> Tensor:
    """:func:`dcnv3` on the undivided output of one linear layer, for modules.

    Args:
        input: (N, H, W, C).
        offset_mask: (N, Ho, Wo, at least G*P*3): the G*P*2 offsets, then the G*P weights or
            logits, then padding, which is never read and whose gradient is zero.
        geometry: The static arguments, already checked.
        softmax: As in :func:`dcnv3`.

    Returns:
        (N, Ho, Wo, C) in the dtype of ``input``.
    """
    return _call(torch.ops.ops_dcnv3.dcnv3_packed.default, (input, offset_mask), geometry, softmax)


def dcnv3_reference(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    kernel_size: IntPair = 3,
    stride: IntPair = 1,
    padding: IntPair = 1,
    dilation: IntPair = 1,
    groups: int,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
) -> Tensor:
    """:func:`dcnv3` in plain PyTorch, differentiable any number of times; the oracle.

    Arguments, result and errors are those of :func:`dcnv3`.
    """
    geometry = _check(
        "dcnv3_reference", input, offset, mask, kernel_size, stride, padding, dilation, groups,
        offset_scale, remove_center, softmax,
    )  # fmt: skip
    return reference.forward(input, offset, mask, geometry, softmax)


def _call(op: Any, tensors: tuple[Tensor, ...], geometry: Geometry, softmax: bool) -> Tensor:
    in_functorch = torch._C._are_functorch_transforms_active()
    if torch.compiler.is_compiling() and not in_functorch:
        return op(*tensors, *geometry, softmax)
    if is_autocast_on(tensors[0]):
        tensors = _autocast(tensors, tensors[0].device.type)
    if in_functorch or forward_ad._current_level >= 0:
        # The kernels know the first reverse-mode derivative alone. torch.func's transforms and
        # forward-mode derivatives go to the reference, which PyTorch differentiates itself.
        input, *points = tensors
        if len(points) == 1:
            points = list(geometry.split(points[0]))
        offset, mask = points
        return reference.forward(input, offset, mask, geometry, softmax)
    # Plain eager calls skip the dispatcher's way through Python, which costs as much as a small
    # layer's kernel.
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _EagerGradient.apply(op, *tensors, *geometry, softmax)
    with torch._C._AutoDispatchBelowAutograd():
        return _run(op, *tensors, *geometry, softmax)


def _run(op: Any, *args: Any) -> Any:
    """Calls a registered operator and gives a failed allocation its own error back.

    LibTorch's stable interface, which the compiled kernels are written for, makes one nameless
    ``RuntimeError`` of all that goes wrong inside PyTorch. What ``torch.compile`` and
    ``torch.export`` make of a model calls the operators without this function, and there too little
    memory has the nameless error.
    """
    try:
        return op(*args)
    except RuntimeError as error:
        if "API call failed" in str(error):
            _allocate_for(op, args)
        raise


def _allocate_for(op: Any, args: tuple[Any, ...]) -> None:
    """Allocates as much as a call does, in one piece; raises what PyTorch raises if that fails."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    with torch.no_grad():
        results = op(*(v.to("meta") if isinstance(v, Tensor) else v for v in args))
    results = results if isinstance(results, tuple) else (results,)
    size = sum(tensor.nbytes for tensor in results)
    # slices of an even packed tensor are not copied, all else is
    size += sum(tensor.nbytes for tensor in tensors if not tensor.is_contiguous())
    if "_backward" in op.name():
        _, input, *_ = tensors
        deterministic = args[-1]
        # a CPU shares out rows, and needs a map for each share, whatever the mode
        maps = _MOST_MAPS if deterministic or input.device.type == "cpu" else 1
        size += maps * input.numel() * reference.compute_dtype(input.dtype).itemsize
    torch.empty(size, dtype=torch.uint8, device=tensors[0].device)


# ------------------------------------------------------------------------------------------- checks


def _pair(function: str, name: str, value: IntPair, minimum: int) -> tuple[int, int]:
    if type(value) is int and value >= minimum:  # the usual case, worth its own way out
        return value, value
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(_is_int(side) for side in pair):
        raise TypeError(f"{function}: expected {name} = an int or a pair of ints, got {value!r}")
    if min(pair) < minimum:
        raise ValueError(f"{function}: expected {name} >= {minimum}, got {value!r}")
    return int(pair[0]), int(pair[1])


def _is_int(value: object) -> bool:
    """Whether it is a whole number; NumPy's are, True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_geometry(
    function: str,
    *,
    kernel_size: IntPair,
    stride: IntPair,
    padding: IntPair,
    dilation: IntPair,
    groups: int,
    offset_scale: float,
    remove_center: bool,
) -> Geometry:
    """Checks the arguments that are no tensors; raises what :func:`dcnv3` documents."""
    kernel_h, kernel_w = _pair(function, "kernel_size", kernel_size, 1)
    if not _is_int(groups):
        raise TypeError(f"{function}: expected groups = an int, got {groups!r}")
    if groups < 1:
        raise ValueError(f"{function}: expected groups >= 1, got {groups}")
    if not isinstance(offset_scale, numbers.Real) or isinstance(offset_scale, bool):
        raise TypeError(f"{function}: expected offset_scale = a number, got {offset_scale!r}")
    if not -math.inf < offset_scale < math.inf:  # torch.compile cannot trace math.isfinite
        raise ValueError(f"{function}: expected offset_scale = a finite number, got {offset_scale}")
    if not isinstance(remove_center, bool):
        raise TypeError(f"{function}: expected remove_center = a bool, got {remove_center!r}")
    if remove_center and (kernel_h % 2 == 0 or kernel_w % 2 == 0 or kernel_h * kernel_w == 1):
        raise ValueError(
            f"{function}: expected kernel_size = odd numbers and more than one point with "
            f"remove_center, got {(kernel_h, kernel_w)}"
        )
    return Geometry(
        kernel_h,
        kernel_w,
        *_pair(function, "stride", stride, 1),
        *_pair(function, "padding", padding, 0),
        *_pair(function, "dilation", dilation, 1),
        int(groups),
        float(offset_scale),
        remove_center,
    )


def _check(
    function: str,
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: IntPair,
    stride: IntPair,
    padding: IntPair,
    dilation: IntPair,
    groups: int,
    offset_scale: float,
    remove_center: bool,
    softmax: bool,
) -> Geometry:
    if not isinstance(softmax, bool):
        raise TypeError(f"{function}: expected softmax = a bool, got {softmax!r}")
    for name, tensor in (("input", input), ("offset", offset), ("mask", mask)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{function}: expected {name} = a tensor, got {type(tensor).__name__}")
        if tensor.dim() != 4:
            raise ValueError(
                f"{function}: expected {name}.dim() = 4 (channels last), "
                f"got shape {tuple(tensor.shape)}"
            )
    geometry = check_geometry(
        function,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        offset_scale=offset_scale,
        remove_center=remove_center,
    )
    _check_tensors(function, input, offset, mask, geometry)
    return geometry


def _check_tensors(
    function: str, input: Tensor, offset: Tensor, mask: Tensor, geometry: Geometry
) -> None:
    n, height, width, channels = input.shape
    if channels < 1 or channels % geometry.groups:
        raise ValueError(
            f"{function}: expected C % groups = 0 with groups = {geometry.groups}, "
            f"got C = {channels}"
        )
    out_h, out_w = geometry.output_size(height, width)
    if height < 1 or width < 1 or out_h < 1 or out_w < 1:
        raise ValueError(
            f"{function}: expected an output of at least 1 x 1, "
            f"got {out_h} x {out_w} from input {height} x {width}"
        )
    per_pixel = geometry.points_per_pixel()
    if offset.shape != (n, out_h, out_w, per_pixel * 2):
        raise ValueError(
            f"{function}: expected offset.shape = (N, Ho, Wo, G*P*2) = "
            f"{(n, out_h, out_w, per_pixel * 2)}, got {tuple(offset.shape)}"
        )
    if mask.shape != (n, out_h, out_w, per_pixel):
        raise ValueError(
            f"{function}: expected mask.shape = (N, Ho, Wo, G*P) = {(n, out_h, out_w, per_pixel)}, "
            f"got {tuple(mask.shape)}"
        )
    if input.dtype not in _DTYPES:
        raise ValueError(f"{function}: expected input.dtype in {_DTYPES}, got {input.dtype}")
    low_precision = input.dtype in (torch.bfloat16, torch.float16)
    for name, tensor in (("offset", offset), ("mask", mask)):
        if tensor.dtype != input.dtype and not (low_precision and tensor.dtype == torch.float32):
            allowed = f"{input.dtype} or torch.float32" if low_precision else f"{input.dtype}"
            raise ValueError(f"{function}: expected {name}.dtype = {allowed}, got {tensor.dtype}")
        if tensor.device != input.device:
            raise ValueError(
                f"{function}: expected {name}.device = {input.device}, got {tensor.device}"
            )


# ------------------------------------------------------------- devices without a registered kernel
# CompositeExplicitAutograd serves every device that has no kernel of its own in the dispatcher: a
# CPU without the extension, any other accelerator, and CUDA until the first call has found out what
# the devices are (see backends.py).


def _register_fallback(name: str) -> None:
    def run(*args: Any) -> Any:
        return backends.implementation(name, args[0].device)(*args)

    _library.impl(name, run, "CompositeExplicitAutograd")


for _name in ("dcnv3", "dcnv3_backward", "dcnv3_packed", "dcnv3_packed_backward"):
    _register_fallback(_name)


# -------------------------------------------------------------------------------------------- fakes


@torch.library.register_fake("ops_dcnv3::dcnv3", lib=_library)
def _fake_forward(input: Tensor, offset: Tensor, mask: Tensor, *static: Any) -> Tensor:
    return input.new_empty((*offset.shape[:3], input.shape[3]))


@torch.library.register_fake("ops_dcnv3::dcnv3_backward", lib=_library)
def _fake_backward(
    grad_output: Tensor, input: Tensor, offset: Tensor, mask: Tensor, *static: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return input.new_empty(input.shape), offset.new_empty(offset.shape), mask.new_empty(mask.shape)


@torch.library.register_fake("ops_dcnv3::dcnv3_packed", lib=_library)
def _fake_packed_forward(input: Tensor, offset_mask: Tensor, *static: Any) -> Tensor:
    return input.new_empty((*offset_mask.shape[:3], input.shape[3]))


@torch.library.register_fake("ops_dcnv3::dcnv3_packed_backward", lib=_library)
def _fake_packed_backward(
    grad_output: Tensor, input: Tensor, offset_mask: Tensor, *static: Any
) -> tuple[Tensor, Tensor]:
    return input.new_empty(input.shape), offset_mask.new_empty(offset_mask.shape)


# ----------------------------------------------------------------------------------------- autograd


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-_NUM_STATIC])
    ctx.static = inputs[-_NUM_STATIC:]


def _gradient(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    ops = torch.ops.ops_dcnv3
    saved = ctx.saved_tensors  # once: gradient checkpointing recomputes them at this very access
    op = ops.dcnv3_packed_backward.default if len(saved) == 2 else ops.dcnv3_backward.default
    deterministic = torch.are_deterministic_algorithms_enabled()
    return *_run(op, grad_output, *saved, *ctx.static, deterministic), *(None for _ in ctx.static)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "ops_dcnv3: DCNv3 has no second derivative; "
        "use ops_dcnv3.dcnv3_reference where one is needed"
    )


for _name in ("ops_dcnv3::dcnv3", "ops_dcnv3::dcnv3_packed"):
    torch.library.register_autograd(_name, _gradient, setup_context=_setup_context, lib=_library)
    torch.library.register_autograd(f"{_name}_backward", _no_second_derivative, lib=_library)


class _EagerGradient(torch.autograd.Function):
    """The same registration for plain eager calls, at a third of its cost; see :func:`_call`."""

    @staticmethod
    def forward(ctx: Any, op: Any, *args: Any) -> Tensor:
        _setup_context(ctx, args, None)
        with torch._C._AutoDispatchBelowAutograd():
            return _run(op, *args)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: the way that refuses a second derivative
            return None, *_gradient(ctx, grad_output)
        with torch._C._AutoDispatchBelowAutograd():
            return None, *_gradient(ctx, grad_output)


# ----------------------------------------------------------------------------------------- autocast
# torch.library.register_autocast fixes one dtype. The rule here: the input, which decides the dtype
# of the output, follows the region; offsets and weights may stay float32 for their precision.


def _autocast(tensors: tuple[Tensor, ...], device_type: str) -> tuple[Tensor, ...]:
    dtype = torch.get_autocast_dtype(device_type)
    input, *points = tensors
    if input.dtype == torch.float64:
        return tensors
    return input.to(dtype), *(
        tensor if tensor.dtype == torch.float32 else tensor.to(dtype) for tensor in points
    )


def _register_autocast(name: str, key: torch._C.DispatchKey, device_type: str) -> None:
    op = getattr(torch.ops.ops_dcnv3, name).default
    keys = torch._C.DispatchKeySet(key)

    def rule(*args: Any) -> Tensor:
        tensors = tuple(value for value in args if isinstance(value, Tensor))
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*_autocast(tensors, device_type), *args[len(tensors) :])

    _library.impl(name, rule, key.name)


for _name in ("dcnv3", "dcnv3_packed"):
    _register_autocast(_name, torch._C.DispatchKey.AutocastCPU, "cpu")
    _register_autocast(_name, torch._C.DispatchKey.AutocastCUDA, "cuda")
