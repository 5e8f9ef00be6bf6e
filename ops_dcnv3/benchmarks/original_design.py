"""Compiles and calls `original_design.cu`, the original's kernel design; see there."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cuda_toolkit import NoCudaError, find_nvcc  # noqa: E402

SOURCE = Path(__file__).with_name("original_design.cu")
DTYPES = (torch.float32, torch.float16)  # the original has no bfloat16
MOST_CHANNELS = 1024  # of a group: threads of a block


class Sizes(ctypes.Structure):
    """`Sizes` of the source, member by member."""

    _fields_ = [
        *(
            (name, ctypes.c_int)
            for name in (
                *("batch", "height", "width", "out_height", "out_width", "groups", "channels"),
                *("kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w"),
                *("dilation_h", "dilation_w"),
            )
        ),
        ("offset_scale", ctypes.c_float),
    ]


def build(folder: Path, capability: tuple[int, int]) -> Path:
    """Compiles the source for a device of this (major, minor) into the folder.

    Raises:
        RuntimeError: If there is no nvcc, or it fails.
    """
    try:
        nvcc = find_nvcc()
    except NoCudaError as reason:
        raise RuntimeError(f"original_design: {reason}") from reason
    number = "".join(map(str, capability))
    target = folder / f"original_design_sm{number}.so"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            *(nvcc, "-O3", "-std=c++17", f"-gencode=arch=compute_{number},code=sm_{number}"),
            *("-shared", "-Xcompiler", "-fPIC", str(SOURCE), "-o", str(target)),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"original_design: nvcc failed: {(done.stderr + done.stdout)[-2000:]}")
    return target


def sizes_of(image: Tensor, groups: int) -> Sizes:
    """A 3 x 3 kernel as every released model has it: output and input have the same size."""
    batch, height, width, channels = image.shape
    shape = (batch, height, width, height, width, groups, channels // groups)
    return Sizes(*shape, 3, 3, 1, 1, 1, 1, 1, 1, 1.0)


class OriginalDesign:
    """The two kernels with what the original runs around them in PyTorch."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        for name, tensors in (("original_forward", 4), ("original_backward", 7)):
            function = getattr(self.library, name)
            pointers = [ctypes.c_void_p] * (tensors + 1)  # and the stream
            function.argtypes = [ctypes.POINTER(Sizes), ctypes.c_bool, *pointers]
            function.restype = ctypes.c_int

    def _launch(self, function: str, image: Tensor, groups: int, *tensors: Tensor) -> None:
        if image.dtype not in DTYPES or image.shape[-1] // groups > MOST_CHANNELS:
            raise RuntimeError(f"original_design: no kernel for {image.dtype}, {image.shape}")
        stream = torch.cuda.current_stream(image.device).cuda_stream
        with torch.cuda.device(image.device):
            error = getattr(self.library, function)(
                ctypes.byref(sizes_of(image, groups)),
                image.dtype == torch.float16,
                *(tensor.data_ptr() for tensor in tensors),
                stream,
            )
        if error:
            raise RuntimeError(f"original_design: {function} failed with CUDA error {error}")

    def forward(self, image: Tensor, offset: Tensor, logits: Tensor, *, groups: int) -> Tensor:
        """Softmax by PyTorch, then the kernel: (N, H, W, C)."""
        mask = logits.unflatten(-1, (groups, -1)).softmax(-1)
        output = torch.empty_like(image)
        self._launch("original_forward", image, groups, image, offset, mask, output)
        return output

    def backward(
        self, grad_output: Tensor, image: Tensor, offset: Tensor, mask: Tensor, *, groups: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of image, offset and logits, from the weights that forward has kept.

        The sums are zeros of float32 before the kernel and cast after it.
        """
        sums = [torch.zeros_like(t, dtype=torch.float32) for t in (image, offset, mask)]
        arguments = (grad_output, image, offset, mask, *sums)
        self._launch("original_backward", image, groups, *arguments)
        grad_image, grad_offset, grad_mask = (t.to(image.dtype) for t in sums)
        grouped = (groups, -1)
        grad_logits = torch.ops.aten._softmax_backward_data.default(
            grad_mask.unflatten(-1, grouped), mask.unflatten(-1, grouped), -1, mask.dtype
        )
        return grad_image, grad_offset, grad_logits.flatten(-2)
