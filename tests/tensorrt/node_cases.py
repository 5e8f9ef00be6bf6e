"""DCNv3 nodes with tensors, and what the operator's reference makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import ops_dcnv3


@dataclass(frozen=True)
class Node:
    """A node's attributes and the size of its input.

    Args:
        packed: Offsets and weights lie in one tensor.
        padding: With `packed`: unused numbers behind them in each pixel.
        dtype: Of the input, as numpy names it.
        point_dtype: Of offsets and weights; None: the input's.
    """

    batch: int = 2
    height: int = 7
    width: int = 6
    channels: int = 32
    group: int = 2
    kernel_h: int = 3
    kernel_w: int = 3
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 1
    pad_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    offset_scale: float = 1.0
    remove_center: int = 0
    softmax: int = 0
    packed: bool = False
    padding: int = 0
    dtype: str = "float32"
    point_dtype: str | None = None

    @property
    def attributes(self) -> dict[str, int | float]:
        """Those of the ONNX node."""
        pairs = ("kernel", "stride", "pad", "dilation")
        names = [f"{pair}_{axis}" for pair in pairs for axis in "hw"]
        names += ["group", "offset_scale", "remove_center", "softmax"]
        return {name: getattr(self, name) for name in names}

    @property
    def points(self) -> int:
        """Numbers a pixel of the weights."""
        return self.group * (self.kernel_h * self.kernel_w - self.remove_center)

    @property
    def output_size(self) -> tuple[int, int, int, int]:
        """(N, Ho, Wo, C)."""

        def size(axis: str, length: int) -> int:
            kernel, stride, pad, dilation = (
                getattr(self, f"{name}_{axis}") for name in ("kernel", "stride", "pad", "dilation")
            )
            return (length + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1

        return self.batch, size("h", self.height), size("w", self.width), self.channels

    def inputs(self) -> tuple[np.ndarray, ...]:
        """Random input, offsets and weights, or input and both in one."""
        random = np.random.default_rng(0)
        pixels = self.output_size[:3]
        image = random.standard_normal((self.batch, self.height, self.width, self.channels))
        offset = 2.0 * random.standard_normal((*pixels, 2 * self.points))
        mask = random.standard_normal((*pixels, self.points))
        point_dtype = self.point_dtype or self.dtype
        if not self.packed:
            return image.astype(self.dtype), offset.astype(point_dtype), mask.astype(point_dtype)
        padding = np.full((*pixels, self.padding), np.nan)
        both = np.concatenate([offset, mask, padding], axis=-1)
        return image.astype(self.dtype), both.astype(point_dtype)

    def expected(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        """The reference's output in float64."""
        image, offset, mask = self.parted(inputs)
        result = ops_dcnv3.dcnv3_reference(
            *(torch.from_numpy(array.astype(np.float64)) for array in (image, offset, mask)),
            kernel_size=(self.kernel_h, self.kernel_w),
            stride=(self.stride_h, self.stride_w),
            padding=(self.pad_h, self.pad_w),
            dilation=(self.dilation_h, self.dilation_w),
            groups=self.group,
            offset_scale=self.offset_scale,
            remove_center=bool(self.remove_center),
            softmax=bool(self.softmax),
        )
        return result.numpy()

    def parted(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Input, offsets and weights."""
        if not self.packed:
            return inputs
        image, both = inputs
        end = 3 * self.points
        return image, both[..., : 2 * self.points], both[..., 2 * self.points : end]


NODES = {
    "plain": Node(),
    "softmax": Node(softmax=1),
    "packed": Node(packed=True, softmax=1),
    "packed with padding": Node(packed=True, padding=2, softmax=1),
    "stride 2": Node(height=9, width=8, stride_h=2, stride_w=2, softmax=1, packed=True),
    "uneven everything": Node(
        height=9, width=11, channels=21, group=3, kernel_h=3, kernel_w=5, stride_h=1, stride_w=2,
        pad_h=0, pad_w=3, dilation_h=2, dilation_w=1, offset_scale=1.5,
    ),
    "without the centre": Node(remove_center=1, softmax=1, packed=True, offset_scale=2.0),
    "half": Node(dtype="float16", softmax=1, packed=True),
    "half beside float32 points": Node(dtype="float16", point_dtype="float32", softmax=1),
    "half, any channels": Node(dtype="float16", channels=10, kernel_h=5, kernel_w=5, pad_h=2),
}  # fmt: skip


def assert_as_expected(actual: np.ndarray, node: Node, inputs: tuple[np.ndarray, ...]) -> None:
    """Compare with the reference: to rounding in float32, to half's in float16."""
    expected = node.expected(inputs)
    assert actual.shape == expected.shape
    tolerance = 4e-3 if node.dtype == "float16" else 2e-6
    difference = np.abs(actual.astype(np.float64) - expected).max()
    assert difference <= tolerance * np.abs(expected).max()
