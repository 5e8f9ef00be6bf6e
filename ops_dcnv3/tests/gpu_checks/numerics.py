"""All dtypes over a table of shapes, against the reference in float64."""

from __future__ import annotations

from functools import partial

import dcnv3_cases
import torch
from dcnv3_cases import Case, assert_all_close, run_oracle

import ops_dcnv3

from .compare import DTYPES, assert_exact, make_tensors, name_of, off_device
from .table import add

# Small shapes: made and judged on the CPU, so that under compute-sanitizer hardly a kernel runs but
# the operator's own.
SMALL = [
    *(Case(height=3, width=4, group_channels=d, softmax=d % 2 == 0) for d in (1, 7, 8, 16, 24)),
    *(Case(height=3, width=4, group_channels=d, softmax=d % 2 == 0) for d in (32, 33, 48, 64, 65)),
    *(Case(batch=1, height=3, width=4, groups=1, group_channels=d) for d in (128, 257, 1024)),
    *(Case(height=5, width=4, groups=g, group_channels=16, softmax=True) for g in (1, 3, 5, 7, 20)),
    *(Case(height=5, width=4, groups=g, group_channels=32) for g in (1, 3, 10)),
    Case(height=8, width=9, kernel_size=1, padding=0),
    Case(height=8, width=9, kernel_size=(2, 3), softmax=True),
    Case(height=8, width=9, kernel_size=5, padding=2, group_channels=16, softmax=True),
    Case(height=8, width=9, kernel_size=7, padding=3, groups=1),
    Case(height=8, width=9, remove_center=True, group_channels=16, softmax=True),
    Case(height=8, width=9, kernel_size=(3, 5), padding=(1, 2), remove_center=True),
    Case(height=9, width=8, stride=2, group_channels=16),
    Case(height=9, width=8, stride=(3, 2), padding=(0, 2)),
    Case(height=9, width=8, padding=4, group_channels=16, softmax=True),
    Case(height=9, width=8, dilation=2, padding=2, group_channels=16, softmax=True),
    Case(height=9, width=8, dilation=(1, 3), padding=(1, 3)),
    Case(height=9, width=8, offset_scale=2.0, group_channels=16, softmax=True),
    Case(height=9, width=8, offset_scale=0.5, dilation=2, stride=2, padding=(1, 2)),
    Case(height=1, width=1, group_channels=16, softmax=True),
    Case(height=1, width=13, group_channels=16),
    Case(height=13, width=1, group_channels=32),
    Case(height=17, width=19, group_channels=16, groups=4, softmax=True),
    Case(batch=5, height=3, width=3, group_channels=16),
]

# The stages of InternImage-T (D = 16) and the groups of -H and -G (D = 32), images of 224 pixels;
# 7 x 7 and 14 x 14 are where blocks of threads can straddle two images.
STAGES = [
    Case(batch=batch, height=side, width=side, groups=groups, group_channels=16, softmax=True)
    for batch in (1, 6)
    for side, groups in ((56, 4), (28, 8), (14, 16), (7, 32))
]
REAL = [
    *STAGES,
    Case(batch=3, height=14, width=14, groups=10, group_channels=32, softmax=True),
    Case(batch=2, height=28, width=28, groups=5, group_channels=16),
    Case(batch=2, height=56, width=56, groups=2, group_channels=33),
    Case(batch=2, height=32, width=24, groups=4, group_channels=16, kernel_size=5, padding=2),
    Case(batch=2, height=31, width=29, groups=4, group_channels=16, remove_center=True),
]
# A batch as in training, and images as in detection, whose gradient is larger than any tile.
LARGE = [
    Case(batch=64, height=56, width=56, groups=4, group_channels=16, softmax=True),
    Case(batch=64, height=7, width=7, groups=32, group_channels=16, softmax=True),
    Case(batch=257, height=14, width=14, groups=4, group_channels=16),
    Case(batch=1, height=200, width=320, groups=4, group_channels=16, softmax=True),
    Case(batch=2, height=100, width=160, groups=8, group_channels=16, softmax=True),
    Case(batch=1, height=200, width=319, groups=2, group_channels=32),
]
LOW = (torch.float16, torch.bfloat16)


def run(tensors, grad_output, case: Case) -> tuple[torch.Tensor, ...]:
    """Output and gradients of the operator as it is installed at this moment."""
    return dcnv3_cases.run(ops_dcnv3.dcnv3, tensors, grad_output, case.settings)


def small(device: torch.device, *, case: Case, dtype: torch.dtype) -> str:
    """A small shape, everything but the operator on the CPU."""
    tensors, grad_output = case.tensors(dtype), case.grad_output(dtype)
    actual = run([t.to(device) for t in tensors], grad_output.to(device), case)
    return assert_exact(off_device(actual), tensors, grad_output, case)


def loops(device: torch.device, *, case: Case) -> None:
    """Float64 against the oracle, which is plain loops and shares no code with the package."""
    tensors, grad_output = case.tensors(), case.grad_output()
    actual = run([t.to(device) for t in tensors], grad_output.to(device), case)
    expected = run_oracle(tensors, grad_output, case)
    assert_all_close(off_device(actual), expected, tolerance=1e-9)


def real(
    device: torch.device,
    *,
    case: Case,
    dtype: torch.dtype,
    points_dtype: torch.dtype | None = None,
    spread: float = 1.5,
) -> str:
    """A shape of real models, all of it on the device."""
    tensors, grad_output = make_tensors(
        case, device, dtype, points_dtype=points_dtype, spread=spread
    )
    return assert_exact(run(tensors, grad_output, case), tensors, grad_output, case)


def empty_batch(device: torch.device) -> None:
    """No image at all: results without elements, gradients too, and no error of a launch."""
    for dtype in DTYPES:
        case = Case(batch=0, group_channels=16, softmax=True)
        tensors, grad_output = case.tensors(dtype), case.grad_output(dtype)
        actual = run([t.to(device) for t in tensors], grad_output.to(device), case)
        for ours, like in zip(actual, (grad_output, *tensors), strict=True):
            assert (ours.shape, ours.dtype) == (like.shape, dtype), (ours.shape, ours.dtype)


def only_some_gradients(device: torch.device) -> None:
    """Each argument alone may want a gradient, and gets the one it gets beside the others."""
    case = Case(batch=2, height=9, width=7, groups=2, group_channels=16, softmax=True)
    tensors = [t.to(device) for t in case.tensors()]
    grad_output = case.grad_output().to(device)
    expected = run(tensors, grad_output, case)[1:]
    for wanted, theirs in enumerate(expected):
        leaves = [t.detach().clone() for t in tensors]
        leaves[wanted].requires_grad_()
        ops_dcnv3.dcnv3(*leaves, **case.settings).backward(grad_output)
        torch.testing.assert_close(leaves[wanted].grad, theirs, rtol=0, atol=1e-11)
        assert all(t.grad is None for i, t in enumerate(leaves) if i != wanted)
    exact = run_oracle(off_device(tensors), grad_output.cpu(), case)[1:]
    assert_all_close((exact[0], *off_device(expected)), (exact[0], *exact), tolerance=1e-9)


for _case in SMALL:
    for _dtype in DTYPES:
        _function = partial(small, case=_case, dtype=_dtype)
        add(f"small/{name_of(_dtype)}/{_case}", _function, sanitize=True)
for _case in (SMALL[3], SMALL[1], SMALL[20], SMALL[25], SMALL[28]):
    add(f"loops/float64/{_case}", partial(loops, case=_case))
for _case in REAL:
    for _dtype in DTYPES:
        add(f"real/{name_of(_dtype)}/{_case}", partial(real, case=_case, dtype=_dtype))
for _case in LARGE:
    for _dtype in DTYPES[1:]:
        _function = partial(real, case=_case, dtype=_dtype)
        add(f"large/{name_of(_dtype)}/{_case}", _function, slow=True)
for _case in (STAGES[4], STAGES[7], REAL[8]):
    for _dtype in LOW:
        _function = partial(real, case=_case, dtype=_dtype, points_dtype=torch.float32)
        add(f"float32-offsets/{name_of(_dtype)}/{_case}", _function)
for _spread in (0.3, 8.0, 100.0):  # within a pixel; out of every tile; mostly out of the image
    for _dtype in DTYPES[1:]:
        _function = partial(real, case=STAGES[4], dtype=_dtype, spread=_spread)
        add(f"spread/{name_of(_dtype)}/{_spread:g}-pixels", _function)
add("shapes/empty-batch", empty_batch, sanitize=True)
add("shapes/only-some-gradients", only_some_gradients)
