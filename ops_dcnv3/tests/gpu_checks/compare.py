"""Tensors made on the device, exact results in float64, and how far from them a result may be.

Legend: N batch, H W input, Ho Wo output, C channels, G groups, D = C/G channels a group, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dcnv3_cases import RESULT_NAMES, Case
from torch import Tensor

from ops_dcnv3 import reference

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
CHUNK = 2**26  # corner values that the reference may hold at a time: it keeps several such tensors
Results = tuple[Tensor, ...]  # output, grad_input, grad_offset, grad_mask


def name_of(dtype: torch.dtype) -> str:
    """`float16` for `torch.float16`."""
    return str(dtype).removeprefix("torch.")


def make_tensors(
    case: Case,
    device: torch.device,
    dtype: torch.dtype,
    *,
    points_dtype: torch.dtype | None = None,
    spread: float = 1.5,
    seed: int = 0,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Random (input, offset, mask) and gradient of the output, made on the device.

    As `Case.tensors`, which is too slow for real sizes: offsets are normal with a standard
    deviation of `spread` pixels, then moved to at least 0.1 pixel from an integer coordinate, where
    the derivative jumps.
    """
    generator = torch.Generator(device).manual_seed(seed)
    geometry = case.static_arguments
    size = geometry.output_size(case.height, case.width)
    channels = case.groups * case.group_channels
    points = case.groups * geometry.num_points

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device=device)

    offset = normal(case.batch, *size, points * 2) * spread
    moves = [
        (torch.floor(where) + 0.1 + 0.8 * (where - torch.floor(where)) - where)
        for where in reference.sampling_positions(offset, geometry)
    ]  # y, x
    offset += torch.stack(moves[::-1], -1).reshape(offset.shape) / case.offset_scale
    mask = normal(case.batch, *size, points)
    if not case.softmax:
        mask = mask.unflatten(-1, (case.groups, -1)).softmax(-1).flatten(-2)
    image = normal(case.batch, case.height, case.width, channels).to(dtype)
    grad_output = normal(case.batch, *size, channels).to(dtype)
    points_dtype = points_dtype or dtype
    return (image, offset.to(points_dtype), mask.to(points_dtype)), grad_output


def reference_results(tensors: Sequence[Tensor], grad_output: Tensor, case: Case) -> Results:
    """Output and gradients by the reference in the tensors' dtype, a few images at a time."""
    geometry = case.static_arguments
    pixels = grad_output.shape[1] * grad_output.shape[2]
    corners = 4 * pixels * geometry.num_points * grad_output.shape[3]
    images = max(1, CHUNK // corners)
    parts = []
    for first in range(0, len(grad_output), images):
        piece = slice(first, first + images)
        image, offset, mask = (tensor[piece] for tensor in tensors)
        static = (geometry, case.softmax)
        gradients = reference.backward(grad_output[piece], image, offset, mask, *static)
        parts.append((reference.forward(image, offset, mask, *static), *gradients))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def allowed_errors(tensors: Sequence[Tensor], grad_output: Tensor, case: Case) -> Results:
    """Exact results in float64, then the largest error that each of them may have.

    Twice the error of PyTorch's own operations in that dtype, plus one rounding; float64 has no
    finer reference and gets 1e-10.

    Returns:
        Eight tensors: four results, four errors of shape ().
    """
    exact = reference_results([t.double() for t in tensors], grad_output.double(), case)
    if tensors[0].dtype == torch.float64:
        allowed = [1e-10 * truth.abs().max().clamp(min=1) for truth in exact]
    else:
        allowed = []
        same_dtype = reference_results(tensors, grad_output, case)
        for theirs, truth in zip(same_dtype, exact, strict=True):
            rounding = torch.finfo(theirs.dtype).eps * truth.abs().max()
            allowed.append(2 * (theirs.double() - truth).abs().max() + rounding)
    return (*exact, *allowed)


def assert_exact(
    actual: Sequence[Tensor], tensors: Sequence[Tensor], grad_output: Tensor, case: Case
) -> str:
    """Every result in the right dtype and shape, and within its allowed error; says how near."""
    return assert_within(actual, allowed_errors(tensors, grad_output, case), tensors)


def assert_within(actual: Sequence[Tensor], bounds: Results, tensors: Sequence[Tensor]) -> str:
    """As `assert_exact`, with what `allowed_errors` gave, for many results of one input."""
    exact, allowed = bounds[:4], bounds[4:]
    dtypes = (tensors[0].dtype, *(tensor.dtype for tensor in tensors))
    shares = []
    for name, ours, truth, bound, dtype in zip(
        RESULT_NAMES, actual, exact, allowed, dtypes, strict=True
    ):
        assert ours.dtype == dtype, f"{name}: expected {dtype}, got {ours.dtype}"
        assert ours.shape == truth.shape, f"{name}: expected {truth.shape}, got {ours.shape}"
        error = (ours.double() - truth).abs().max()
        # written so that NaN fails
        assert error <= bound, f"{name}: error {error:.3e}, allowed {bound:.3e}"
        shares.append(f"{name} {error / bound:.2f}")
    return "error / allowed: " + ", ".join(shares)


def assert_same_bits(actual: Sequence[Tensor], expected: Sequence[Tensor], what: str = "") -> None:
    """Bitwise equal, names and all."""
    for name, ours, theirs in zip(RESULT_NAMES, actual, expected, strict=True):
        assert torch.equal(ours, theirs), f"{name} differs{what}"


def off_device(tensors: Sequence[Tensor]) -> Results:
    """The same tensors in main memory."""
    return tuple(tensor.cpu() for tensor in tensors)
