"""Runs the CUDA kernels on the host, through the library that cuda_host/kernels.cpp makes.

Every tensor lies between guard bytes that must not change, and starts full of NaN where the kernel
is to write.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from dcnv3_cases import Case, pair
from host_build import build
from torch import Tensor

import ops_dcnv3

Tensors = tuple[Tensor, Tensor, Tensor]  # input, offset and mask, or their gradients

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # DType of dcnv3_params.h
ORDERS = ("ascending", "descending", "random")  # Order of host_lanes.h

GUARD_BYTES = 256
GUARD = 0xA5
MOST_COPIED = 1 << 28  # bytes; a larger input is used where it is, without guards
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(ops_dcnv3.dcnv3).parameters.items()
    if parameter.default is not parameter.empty
}
H200_MULTIPROCESSORS = 132
H200_SHARED_BYTES = 232448  # 227 KiB, what one block can have


@dataclass(frozen=True)
class Run:
    """How to run a kernel.

    Args:
        order: In which blocks, warps and lanes take turns.
        seed: Of the random order.
        multiprocessors: Of the GPU that the launch plans are made for.
        shared_bytes: Of shared memory that a block can have there.
        side: Force tiles of so many pixels along a side; 0 leaves the choice to the plan.
        groups: With `side`: groups of a tile.
        threads: With `side`: threads of a block at most.
        margin: With `side`: pixels that a window of the backward pass reaches beyond the grid.
        deterministic: Take the backward pass that gives the same bits at every run.
        only_check: Check what would be launched and run nothing.
        matrices: Whether that GPU has tensor cores for the gradient of the input.
    """

    order: str = "ascending"
    seed: int = 0
    multiprocessors: int = H200_MULTIPROCESSORS
    shared_bytes: int = H200_SHARED_BYTES
    side: int = 0
    groups: int = 1
    threads: int = 256
    margin: int = 0
    deterministic: bool = False
    only_check: bool = False
    matrices: bool = True


_FORCED = ("side", "groups", "threads", "margin", "deterministic", "only_check", "matrices")


class _Run(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int32) for n in ("order", "multiprocessors")),
        *((n, ctypes.c_int64) for n in ("seed", "shared_bytes")),
        *((n, ctypes.c_int32) for n in _FORCED),
    ]


_SIZES = ("batch", "height", "width", "groups", "depth", "out_height", "out_width")
_PAIRS = ("kernel_size", "stride", "padding", "dilation")


class _Params(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int64) for n in _SIZES),
        *((f"{n}_{axis}", ctypes.c_int64) for n in _PAIRS for axis in ("h", "w")),
        ("offset_scale", ctypes.c_double),
        *((n, ctypes.c_bool) for n in ("remove_center", "softmax")),
        *((n, ctypes.c_int64) for n in ("offset_stride", "mask_stride")),
    ]


class _ForwardArgs(ctypes.Structure):
    _fields_ = [
        ("params", _Params),
        *((n, ctypes.c_int32) for n in ("dtype", "offset_dtype", "mask_dtype")),
        *((n, ctypes.c_void_p) for n in ("input", "offset", "mask", "output")),
    ]


class _BackwardArgs(ctypes.Structure):
    _fields_ = [
        ("forward", _ForwardArgs),
        *((n, ctypes.c_void_p) for n in ("grad_output", "grad_input", "grad_offset", "grad_mask")),
        *((n, ctypes.c_int64) for n in ("grad_offset_stride", "grad_mask_stride", "chunks")),
        ("partial", ctypes.c_void_p),
    ]


class Guarded:
    """A tensor between guard bytes.

    Args:
        name: What errors call it.
        shape: Of the tensor.
        dtype: Of the tensor.
        source: Its values; NaN without any, for a tensor that a kernel writes.
        shift: Elements from a multiple of 16 bytes to the first one.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        source: Tensor | None = None,
        shift: int = 0,
    ):
        self.name = name
        self.c_name = name.encode()  # kept here while the library uses it
        self.writable = source is None
        if source is not None and source.nbytes > MOST_COPIED:
            self._memory, self._inside = source.view(-1).view(torch.uint8), slice(0, source.nbytes)
            self.tensor = source
            return
        count = torch.Size(shape).numel()
        item = torch.empty(0, dtype=dtype).element_size()
        self._memory = torch.full((count * item + 2 * GUARD_BYTES + 256,), GUARD, dtype=torch.uint8)
        start = GUARD_BYTES + -self._memory.data_ptr() % 128 + shift * item
        self._inside = slice(start, start + count * item)
        self._memory[self._inside] = 0xFF  # NaN in every format
        self.tensor = self._memory[self._inside].view(dtype).view(shape)
        if source is not None:
            self.tensor.copy_(source)

    @property
    def address(self) -> int:
        """Of the first element."""
        return self._memory.data_ptr() + self._inside.start

    @property
    def bytes(self) -> int:
        """Of all elements."""
        return self._inside.stop - self._inside.start

    def assert_guards_untouched(self) -> None:
        """Fail where something was written before or behind the tensor."""
        before, behind = self._memory[: self._inside.start], self._memory[self._inside.stop :]
        assert (before == GUARD).all(), f"written before {self.name}"
        assert (behind == GUARD).all(), f"written behind {self.name}"


@dataclass(frozen=True)
class Layout:
    """Where the tensors lie.

    Args:
        packed: Offsets and mask side by side in one tensor.
        padding: With `packed`: unused elements behind them in each pixel.
        shift: Elements from a multiple of 16 bytes to the first of the input.
        output_shift: The same for output and grad_output.
        grad_shift: The same for grad_input.
        point_shift: The same for offsets, mask and their gradients.
    """

    packed: bool = False
    padding: int = 0
    shift: int = 0
    output_shift: int = 0
    grad_shift: int = 0
    point_shift: int = 0


@dataclass
class _Call:
    """The tensors of one call and the structure that leads to them."""

    args: _BackwardArgs
    guarded: dict[str, Guarded] = field(default_factory=dict)

    def add(self, name: str, *arguments: Any, **more: Any) -> Guarded:
        self.guarded[name] = Guarded(name, *arguments, **more)
        return self.guarded[name]


class HostKernels:
    """The kernels of one build of cuda_host/kernels.cpp."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        for name in ("host_forward", "host_backward"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._library.host_partial_numbers.restype = ctypes.c_int64
        self._library.host_watch.argtypes = (
            *(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int),
        )
        sizes = [self._library.host_bytes_of_args(), self._library.host_bytes_of_run()]
        assert sizes == [ctypes.sizeof(_BackwardArgs), ctypes.sizeof(_Run)]

    def forward(
        self, tensors: Tensors, settings: dict[str, Any], run: Run, layout: Layout
    ) -> Tensor:
        """The output (N, Ho, Wo, C); fails with what the emulator finds."""
        call = _arrange(tensors, settings, layout)
        image, offset, _ = tensors
        shape = (*offset.shape[:3], image.shape[-1])
        output = call.add("output", shape, image.dtype, shift=layout.output_shift)
        call.args.forward.output = output.address
        self._run("host_forward", call, call.args.forward, run)
        return output.tensor.clone()

    def backward(
        self,
        tensors: Tensors,
        grad_output: Tensor,
        settings: dict[str, Any],
        run: Run,
        layout: Layout,
    ) -> Tensors:
        """The gradients of input, offset and mask; fails with what the emulator finds."""
        call = _arrange(tensors, settings, layout)
        image, offset, mask = tensors
        args, shift = call.args, layout.output_shift
        above = call.add("grad_output", grad_output.shape, image.dtype, grad_output, shift=shift)
        grad_input = call.add("grad_input", image.shape, image.dtype, shift=layout.grad_shift)
        args.grad_output, args.grad_input = above.address, grad_input.address
        wider = replace(layout, padding=layout.padding + 3)  # strides of their own
        grad_offset, grad_mask = _place_points(call, offset, mask, wider, gradients=True)
        args.grad_offset_stride, args.grad_mask_stride = grad_offset.stride(2), grad_mask.stride(2)
        numbers = self._library.host_partial_numbers(ctypes.byref(args), ctypes.byref(_as_c(run)))
        if numbers > 0:
            dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
            args.partial = call.add("partial", (numbers,), dtype).address
        self._run("host_backward", call, args, run)
        if layout.packed:
            padding = call.guarded["grad_packed"].tensor[..., -wider.padding :]
            assert padding.isnan().all(), "the gradient's padding was written"
        return grad_input.tensor.clone(), grad_offset.clone(), grad_mask.clone()

    def check_launches(self, case: Case, dtype: torch.dtype, run: Run) -> str:
        """Why a GPU would refuse a launch of either pass; empty where it would not."""
        size = case.geometry.output_size(case.height, case.width)
        points = case.groups * case.static_arguments.num_points
        params = _params(
            *((case.batch, case.height, case.width), case.groups, case.group_channels, size),
            *(case.settings, 2 * points, points),
        )
        args = _BackwardArgs(_ForwardArgs(params, *(3 * [DTYPES.index(dtype)])))
        run = replace(run, only_check=True)
        for function, which in (("host_forward", args.forward), ("host_backward", args)):
            error = getattr(self._library, function)(ctypes.byref(which), ctypes.byref(_as_c(run)))
            if error:
                return error.decode()
        return ""

    def forward_lanes(self, tensors: Tensors, settings: dict[str, Any]) -> int:
        """Lanes that share a cell in the forward pass; 0 for the kernel of single numbers."""
        call = _arrange(tensors, settings, Layout())
        return self._library.host_forward_lanes(ctypes.byref(call.args.forward))

    def uses_matrices(self, tensors: Tensors, settings: dict[str, Any], run: Run) -> bool:
        """Whether the gradient of the input is a product of matrices."""
        call = _arrange(tensors, settings, Layout())
        return bool(
            self._library.host_uses_matrices(ctypes.byref(call.args), ctypes.byref(_as_c(run)))
        )

    def _run(self, function: str, call: _Call, args: ctypes.Structure, run: Run) -> None:
        for guarded in call.guarded.values():
            size = (guarded.address, guarded.bytes, int(guarded.writable))
            self._library.host_watch(guarded.c_name, *size)
        error = getattr(self._library, function)(ctypes.byref(args), ctypes.byref(_as_c(run)))
        self._library.host_forget()
        assert not error, error.decode()
        for guarded in call.guarded.values():
            guarded.assert_guards_untouched()


@functools.cache
def _compiled(kind: str) -> HostKernels | AssertionError:
    """The library, or what the compiler said, once a process."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return HostKernels(build(Path(folder), "kernels", kind, library=True))
        except AssertionError as error:
            return error


def host_kernels(kind: str) -> HostKernels:
    """The kernels in one of the builds of host_build.py."""
    kernels = _compiled(kind)
    if isinstance(kernels, AssertionError):
        raise AssertionError(str(kernels)[-2000:])
    return kernels


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: HostOperator, settings: dict[str, Any], *tensors: Tensor):
        ctx.operator, ctx.settings = operator, settings
        ctx.save_for_backward(*tensors)
        return operator.kernels.forward(tensors, settings, operator.run, operator.layout)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor):
        operator, tensors = ctx.operator, ctx.saved_tensors
        return (
            None,
            None,
            *operator.kernels.backward(
                tensors, grad_output, ctx.settings, operator.run, operator.layout
            ),
        )


@dataclass(frozen=True)
class HostOperator:
    """The kernels with the signature of `ops_dcnv3.dcnv3`, differentiable."""

    kernels: HostKernels
    run: Run = Run()
    layout: Layout = Layout()

    def __call__(self, image: Tensor, offset: Tensor, mask: Tensor, **settings: Any) -> Tensor:
        """The output (N, Ho, Wo, C)."""
        return _Function.apply(self, DEFAULTS | settings, image, offset, mask)


def _as_c(run: Run) -> _Run:
    values = {n: getattr(run, n) for n, _ in _Run._fields_ if n != "order"}
    return _Run(order=ORDERS.index(run.order), **values)


def _place_points(
    call: _Call, offset: Tensor, mask: Tensor, layout: Layout, *, gradients: bool = False
) -> tuple[Tensor, Tensor]:
    """Places offsets and mask, or room for their gradients; sets the addresses."""
    to: Any = call.args if gradients else call.args.forward
    prefix, shift = "grad_" if gradients else "", layout.point_shift
    if not layout.packed:
        pair = []
        for name, tensor in (("offset", offset), ("mask", mask)):
            source = None if gradients else tensor
            placed = call.add(prefix + name, tensor.shape, tensor.dtype, source, shift=shift)
            setattr(to, prefix + name, placed.address)
            pair.append(placed.tensor)
        return pair[0], pair[1]
    padding = torch.full((*mask.shape[:3], layout.padding), torch.nan, dtype=mask.dtype)
    both = torch.cat([offset, mask, padding], dim=-1)
    source = None if gradients else both
    placed = call.add(prefix + "packed", both.shape, both.dtype, source, shift=shift)
    first = offset.shape[-1]
    setattr(to, prefix + "offset", placed.address)
    setattr(to, prefix + "mask", placed.address + first * both.element_size())
    return placed.tensor[..., :first], placed.tensor[..., first : first + mask.shape[-1]]


def _params(
    image_size: tuple[int, ...],
    groups: int,
    depth: int,
    output_size: tuple[int, ...],
    settings: dict[str, Any],
    offset_stride: int,
    mask_stride: int,
) -> _Params:
    """The structure, with sizes as (N, H, W) and (Ho, Wo)."""
    return _Params(
        *(*image_size, groups, depth, *output_size),
        *(size for name in _PAIRS for size in pair(settings[name])),
        *(settings[name] for name in ("offset_scale", "remove_center", "softmax")),
        *(offset_stride, mask_stride),
    )


def _arrange(tensors: Tensors, settings: dict[str, Any], layout: Layout) -> _Call:
    """The inputs of a call, placed, and the structure but for the results' addresses."""
    image, offset, mask = tensors
    groups = settings["groups"]
    points = offset.shape[-1] + mask.shape[-1] + layout.padding
    params = _params(
        *(image.shape[:3], groups, image.shape[3] // groups, offset.shape[1:3], settings),
        *((points, points) if layout.packed else (offset.shape[-1], mask.shape[-1])),
    )
    call = _Call(_BackwardArgs(_ForwardArgs(params, *(DTYPES.index(t.dtype) for t in tensors))))
    placed = call.add("input", image.shape, image.dtype, image, shift=layout.shift)
    call.args.forward.input = placed.address
    _place_points(call, offset, mask, layout)
    return call
