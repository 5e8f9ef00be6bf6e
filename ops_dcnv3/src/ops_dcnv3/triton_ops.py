"""The registered operators on Triton: buffers, block sizes and launches of the kernels.

Each function has the arguments of the operator in ``ops.py`` that bears its name. Importing this
file imports Triton.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from . import triton_kernels
from .reference import Geometry, compute_dtype

THREADS = 128
"""Of a program, for tiles that are neither narrow nor wide."""

THREAD_BYTES = 16
"""A thread's share of a tile of pixels times channels: the widest load that there is."""

INT32_LIMIT = 2**31
"""Elements of a tensor from which on indices are int64, see Note [Indices] of the kernels."""

SCATTER_PROGRAMS = 1024
"""How many programs the deterministic way aims at by sharing out rows: enough for any GPU."""

MAX_SHARES = 8
"""Each share of rows costs a float32 map of the input's size."""

_ACC = {torch.float64: tl.float64, torch.float32: tl.float32}


class _Pixels(NamedTuple):
    """Offsets or weights (N, Ho, Wo, K): their memory and the elements from pixel to pixel."""

    tensor: Tensor
    stride: int


def _pixels(tensor: Tensor) -> _Pixels:
    """The tensor as it is where its pixels are evenly spaced, as in a slice of a packed one."""
    _, height, width, size = tensor.shape
    image, row, pixel, element = tensor.stride()
    even = row == width * pixel and image == height * row and pixel >= size
    if element != 1 or not even:
        tensor = tensor.contiguous()
        pixel = size
    return _Pixels(tensor, pixel)


class _Launch:
    """What the kernels of one call have in common."""

    def __init__(
        self, input: Tensor, offset: Tensor, mask: Tensor, geometry: Geometry, softmax: bool
    ) -> None:
        self.input = input.contiguous()
        self.offset, self.mask = _pixels(offset), _pixels(mask)
        self.batch, self.height, self.width, channels = input.shape
        self.out_height, self.out_width = offset.shape[1:3]
        self.num_pixels = self.batch * self.out_height * self.out_width
        self.groups, self.depth = geometry.groups, channels // geometry.groups
        num_weights = self.groups * geometry.num_points
        pixels = (self.batch, self.out_height, self.out_width)
        if (
            channels % self.groups
            or offset.shape != (*pixels, 2 * num_weights)
            or mask.shape != (*pixels, num_weights)
        ):  # for memory safety; who calls the function gets a better error from its own checks
            raise RuntimeError("ops_dcnv3: the shapes of the tensors do not fit each other")
        self.acc_dtype = compute_dtype(input.dtype)
        self.block_depth = triton.next_power_of_2(self.depth)
        self.block_points = triton.next_power_of_2(geometry.num_points)
        self.share = THREAD_BYTES // input.element_size()
        widest = max(self.block_depth, self.block_points)
        self.block_pixels = max(1, THREADS * self.share // widest)
        row = max(self.offset.stride, self.mask.stride, channels)
        extent = max(self.input.numel(), (self.num_pixels + self.block_pixels) * row)
        self.constants = {
            "geometry": geometry,
            "softmax": softmax,
            "block_points": self.block_points,
            "block_depth": self.block_depth,
            "acc_t": _ACC[self.acc_dtype],
            "index_t": tl.int64 if extent >= INT32_LIMIT else tl.int32,
        }

    @property
    def sizes(self) -> tuple[int, ...]:
        """The runtime arguments that follow the tensors, behind the first."""
        return (
            *(self.height, self.width, self.out_height, self.out_width),
            *(self.groups, self.depth, self.offset.stride, self.mask.stride),
        )

    def run(self, kernel: Any, *args: Any, **constants: Any) -> None:
        """Launches a kernel that owns a block of pixels and a group."""
        programs = triton.cdiv(self.num_pixels, self.block_pixels) * self.groups
        with self.device():
            kernel[(programs,)](
                *args,
                **self.constants,
                **constants,
                block_pixels=self.block_pixels,
                num_warps=self.num_warps(self.block_pixels),
            )

    def scatter(self, grad_output: Tensor) -> Tensor:
        """The gradient of the input (N, H, W, C), the same bits at every run."""
        maps = self.batch * self.groups
        shares = min(MAX_SHARES, triton.cdiv(SCATTER_PROGRAMS, maps), self.out_height)
        partial = self.input.new_zeros((shares, *self.input.shape), dtype=self.acc_dtype)
        with self.device():
            triton_kernels.scatter_kernel[(maps * shares,)](
                *(grad_output, self.offset.tensor, self.mask.tensor, partial, self.batch),
                *self.sizes,
                shares,
                **self.constants,
                num_warps=self.num_warps(1),
            )
        return partial[0] if shares == 1 else partial.sum(0)

    def num_warps(self, pixels: int) -> int:
        """Warps of a program; of the tiles of a great many channels a thread takes more."""
        lanes, most = (64, 8) if torch.version.hip else (32, 16)
        elements = pixels * max(self.block_depth, self.block_points)
        return min(max(elements // (self.share * lanes), 1), most)

    def device(self) -> contextlib.AbstractContextManager[Any]:
        """Triton launches on the current device, whatever the tensors are on."""
        device = self.input.device
        return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def dcnv3(input: Tensor, offset: Tensor, mask: Tensor, *static: Any) -> Tensor:
    """The output, (N, Ho, Wo, C)."""
    *geometry, softmax = static
    launch = _Launch(input, offset, mask, Geometry(*geometry), softmax)
    output = input.new_empty((*offset.shape[:3], input.shape[3]))
    if output.numel():
        tensors = (launch.input, launch.offset.tensor, launch.mask.tensor, output)
        launch.run(triton_kernels.forward_kernel, *tensors, launch.num_pixels, *launch.sizes)
    return output


def dcnv3_packed(input: Tensor, offset_mask: Tensor, *static: Any) -> Tensor:
    """The output, (N, Ho, Wo, C)."""
    return dcnv3(input, *Geometry(*static[:-1]).split(offset_mask), *static)


def _backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    static: tuple[Any, ...],
    grad_offset: Tensor,
    grad_mask: Tensor,
) -> Tensor:
    """Fills the gradients of offsets and weights; returns that of the input."""
    *geometry, softmax, deterministic = static
    if not grad_output.numel():
        return torch.zeros_like(input, memory_format=torch.contiguous_format)
    launch = _Launch(input, offset, mask, Geometry(*geometry), softmax)
    if grad_output.shape != (*offset.shape[:3], input.shape[3]):
        raise RuntimeError("ops_dcnv3: expected grad_output of the output's shape")
    grad_output = grad_output.contiguous()
    scatter = not deterministic
    grad_input = launch.input
    if scatter:
        grad_input = torch.zeros_like(launch.input, dtype=launch.acc_dtype)
    launch.run(
        triton_kernels.backward_kernel,
        *(grad_output, launch.input, launch.offset.tensor, launch.mask.tensor),
        *(grad_input, grad_offset, grad_mask, launch.num_pixels),
        *launch.sizes,
        *(grad_offset.stride(2), grad_mask.stride(2)),
        scatter=scatter,
    )
    if deterministic:
        grad_input = launch.scatter(grad_output)
    return grad_input.to(input.dtype)


def dcnv3_backward(
    grad_output: Tensor, input: Tensor, offset: Tensor, mask: Tensor, *static: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, offsets and weights."""
    grads = offset.new_empty(offset.shape), mask.new_empty(mask.shape)
    return _backward(grad_output, input, offset, mask, static, *grads), *grads


def dcnv3_packed_backward(
    grad_output: Tensor, input: Tensor, offset_mask: Tensor, *static: Any
) -> tuple[Tensor, Tensor]:
    """The gradients of input and packed tensor."""
    geometry = Geometry(*static[:-2])
    padded = offset_mask.shape[3] > 3 * geometry.groups * geometry.num_points
    grad = (offset_mask.new_zeros if padded else offset_mask.new_empty)(offset_mask.shape)
    parts, grads = geometry.split(offset_mask), geometry.split(grad)
    return _backward(grad_output, input, *parts, static, *grads), grad


def probe(device: torch.device) -> None:
    """Compiles and launches the smallest of kernels; raises what Triton raises where it fails."""
    with torch.cuda.device(device):
        triton_kernels.probe_kernel[(1,)](torch.empty(1, dtype=torch.int32, device=device))


OPERATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (dcnv3, dcnv3_backward, dcnv3_packed, dcnv3_packed_backward)
}
"""From the name of a registered operator to the function that runs it."""
