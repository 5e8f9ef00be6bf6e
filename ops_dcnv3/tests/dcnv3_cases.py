"""Settings, random tensors and comparisons that the operator's tests share.

Legend: N batch, H W input, Ho Wo output, C channels, G groups, D = C/G channels a group, P points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dcnv3_oracle as oracle
import numpy as np
import torch
from torch import Tensor

from ops_dcnv3 import reference

Operator = Callable[..., Tensor]
IntOrPair = int | tuple[int, int]


def pair(value: IntOrPair) -> tuple[int, int]:
    """An int as an (height, width) pair."""
    return (value, value) if isinstance(value, int) else value


@dataclass(frozen=True)
class Case:
    """One configuration: `ops_dcnv3.dcnv3(*case.tensors(), **case.settings)` runs it."""

    batch: int = 2
    height: int = 5
    width: int = 6
    groups: int = 2
    group_channels: int = 8
    kernel_size: IntOrPair = 3
    stride: IntOrPair = 1
    padding: IntOrPair = 1
    dilation: IntOrPair = 1
    offset_scale: float = 1.0
    remove_center: bool = False
    softmax: bool = False

    def __str__(self) -> str:
        """The fields that differ from the default, as the test's id."""
        default = Case()
        names = [n for n in self.__dataclass_fields__ if getattr(self, n) != getattr(default, n)]
        return "-".join(f"{n}={getattr(self, n)}".replace(" ", "") for n in names) or "default"

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `ops_dcnv3.dcnv3`."""
        names = ("kernel_size", "stride", "padding", "dilation", "groups")
        return {
            name: getattr(self, name)
            for name in (*names, "offset_scale", "remove_center", "softmax")
        }

    @property
    def geometry(self) -> oracle.Geometry:
        """The same settings for the oracle."""
        return oracle.Geometry(
            self.groups,
            pair(self.kernel_size),
            pair(self.stride),
            pair(self.padding),
            pair(self.dilation),
            self.offset_scale,
            self.remove_center,
        )

    @property
    def static_arguments(self) -> reference.Geometry:
        """The same settings as the package keeps them, in the order of its schema."""
        g = self.geometry
        sizes = (*g.kernel_size, *g.stride, *g.padding, *g.dilation)
        return reference.Geometry(*sizes, g.groups, g.offset_scale, g.remove_center)

    def tensors(
        self, dtype: torch.dtype = torch.float64, *, seed: int = 0, spread: float = 1.5
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Random input (N, H, W, C), offset (N, Ho, Wo, G*P*2) and mask (N, Ho, Wo, G*P).

        Offsets are normal with a standard deviation of `spread` pixels and then moved off the
        lattice: the derivative jumps where a position is an integer; comparing there means nothing.
        """
        rng = np.random.default_rng(seed)
        geometry = self.geometry
        num_points = len(geometry.points())
        size = geometry.output_size(self.height, self.width)
        channels = self.groups * self.group_channels
        image = rng.standard_normal((self.batch, self.height, self.width, channels))
        offset = rng.standard_normal((self.batch, *size, self.groups * num_points * 2)) * spread
        offset = off_lattice(offset, geometry)
        mask = rng.standard_normal((self.batch, *size, self.groups * num_points))
        if not self.softmax:
            mask = oracle.softmax(mask, geometry)
        image, offset, mask = (torch.from_numpy(a).to(dtype) for a in (image, offset, mask))
        return image, offset, mask

    def grad_output(self, dtype: torch.dtype = torch.float64, *, seed: int = 1) -> Tensor:
        """Random gradient of the output, (N, Ho, Wo, C)."""
        size = self.geometry.output_size(self.height, self.width)
        shape = (self.batch, *size, self.groups * self.group_channels)
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def off_lattice(offset: oracle.Array, geometry: oracle.Geometry) -> oracle.Array:
    """Move every sampling position to at least 0.1 pixel from an integer coordinate."""
    where = oracle.positions(offset, geometry)
    moved = np.floor(where) + 0.1 + 0.8 * (where - np.floor(where))
    return offset + ((moved - where) / geometry.offset_scale).reshape(offset.shape)


def run(
    operator: Operator, tensors: tuple[Tensor, ...], grad_output: Tensor, settings: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Output and the gradients of input, offset and mask."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    output = operator(*leaves, **settings)
    gradients = torch.autograd.grad(output, leaves, grad_output)
    return (output.detach(), *gradients)


def run_oracle(
    tensors: tuple[Tensor, ...], grad_output: Tensor, case: Case
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and the three gradients from the oracle, in float64."""
    image, offset, logits = (t.detach().double().numpy() for t in tensors)
    geometry = case.geometry
    mask = oracle.softmax(logits, geometry) if case.softmax else logits
    output = oracle.forward(image, offset, mask, geometry)
    upstream = grad_output.double().numpy()
    grad_image, grad_offset, grad_mask = oracle.backward(image, offset, mask, upstream, geometry)
    if case.softmax:
        grad_mask = oracle.softmax_backward(logits, grad_mask, geometry)
    results = (output, grad_image, grad_offset, grad_mask)
    return tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in results)  # type: ignore[return-value]


RESULT_NAMES = ("output", "grad_input", "grad_offset", "grad_mask")


def assert_all_close(
    actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], *, tolerance: float
) -> None:
    """Every result within `tolerance` (absolute) of the expected one."""
    for name, ours, theirs in zip(RESULT_NAMES, actual, expected, strict=True):
        torch.testing.assert_close(
            ours.double(),
            theirs.double(),
            rtol=0,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def assert_as_exact_as_pytorch(
    actual: tuple[Tensor, ...], pytorch: tuple[Tensor, ...], exact: tuple[Tensor, ...]
) -> None:
    """The largest error is at most twice that of PyTorch in the same dtype, plus one rounding.

    Args:
        actual: Results of the kernel under test, in the dtype it returned.
        pytorch: Results of the reference run in that dtype.
        exact: Results in float64 for the same (already rounded) inputs.
    """
    for name, ours, theirs, truth in zip(RESULT_NAMES, actual, pytorch, exact, strict=True):
        assert ours.dtype == theirs.dtype, f"{name}: dtype {ours.dtype}, PyTorch's {theirs.dtype}"
        if truth.numel() == 0:
            continue
        error = (ours.double() - truth).abs().max()
        rounding = torch.finfo(ours.dtype).eps * truth.abs().max()
        allowed = 2 * (theirs.double() - truth).abs().max() + rounding
        assert error <= allowed, f"{name}: error {error:.3e}, allowed {allowed:.3e}"


@contextmanager
def deterministic_algorithms(enabled: bool = True) -> Iterator[None]:
    """`torch.use_deterministic_algorithms(enabled)` for a while."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(enabled)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
