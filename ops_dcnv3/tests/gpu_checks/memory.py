"""Memory: peaks, recycled blocks, running out of it, and more than 2^31 elements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from dcnv3_cases import Case, deterministic_algorithms
from torch import Tensor

import ops_dcnv3

from .compare import allowed_errors, assert_exact, assert_within, make_tensors, name_of
from .numerics import run
from .table import Skip, add

MIB = 2**20
CASE = Case(batch=2, height=28, width=28, groups=4, group_channels=16, softmax=True)
STAGE = Case(batch=16, height=56, width=56, groups=4, group_channels=16, softmax=True)
WIDE = Case(batch=1, height=200, width=320, groups=4, group_channels=16, softmax=True)
DTYPES = (torch.float32, torch.float16)
LIMIT = 2**31


def requested_peak(device: torch.device, call) -> tuple[object, int]:
    """The result of `call`, and the bytes that it asked of PyTorch's allocator at its peak."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
    result = call()
    torch.cuda.synchronize(device)
    return result, torch.cuda.memory_stats(device)["requested_bytes.all.peak"] - before


def peaks(device: torch.device, *, case: Case, dtype: torch.dtype) -> str:
    """Forward: the output and nothing else. Backward: the gradients, float32 sums, no more.

    The bound of the backward pass is twice the input in float32; the figures go to the log.
    """
    (image, offset, mask), grad_output = make_tensors(case, device, dtype)
    run((image, offset, mask), grad_output, case)  # loads kernels
    with torch.no_grad():
        call = partial(ops_dcnv3.dcnv3, image, offset, mask, **case.settings)
        output, extra = requested_peak(device, call)
    assert extra == output.nbytes, f"forward: output {output.nbytes}, peak {extra} bytes"
    report = [f"forward {extra / MIB:.2f} MiB = the output"]
    leaves = [t.requires_grad_() for t in (image, offset, mask)]
    results = sum(leaf.nbytes for leaf in leaves)
    for deterministic in (False, True):
        output = ops_dcnv3.dcnv3(*leaves, **case.settings)
        call = partial(torch.autograd.grad, output, leaves, grad_output)
        if deterministic:
            with deterministic_algorithms():
                _, extra = requested_peak(device, call)
        else:
            _, extra = requested_peak(device, call)
            most = results + 2 * 4 * image.numel() + MIB
            assert extra <= most, f"backward: peak {extra}, allowed {most} bytes"
        mode = "deterministic " if deterministic else ""
        report.append(
            f"{mode}backward {extra / MIB:.2f} MiB, of it gradients {results / MIB:.2f} MiB"
        )
    return "; ".join(report)


def recycled(device: torch.device, *, dtype: torch.dtype) -> None:
    """Memory that was just freed and holds NaN: every number of a result is written."""
    tensors, grad_output = make_tensors(CASE, device, dtype)
    bounds = allowed_errors(tensors, grad_output, CASE)
    for _ in range(5):
        stale = [torch.full_like(t, torch.nan) for t in (*tensors, grad_output) for _ in range(3)]
        stale += [torch.full(t.shape, torch.nan, device=device) for t in tensors]
        del stale
        assert_within(run(tensors, grad_output, CASE), bounds, tensors)


@contextmanager
def little_memory(device: torch.device, left: int) -> Iterator[None]:
    """Only this many bytes beyond what is in use can be allocated."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, (torch.cuda.memory_reserved(device) + left) / total), device
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def out_of_memory(device: torch.device) -> None:
    """An output or a gradient that does not fit is PyTorch's error; the next call works."""
    # a small image whose output is large: almost all of it is padding, 1 GiB in float32
    wide = Case(1, 1, 1, groups=1, group_channels=1024, padding=256)
    tensors = make_zeros(wide, device)
    with little_memory(device, 256 * MIB):
        expect_out_of_memory(lambda: ops_dcnv3.dcnv3(*tensors, **wide.settings))
    del tensors
    # a large image whose output is small: a gradient of 1 GiB
    coarse = Case(1, 4096, 4096, groups=1, group_channels=16, stride=64)
    leaves = [t.requires_grad_() for t in make_zeros(coarse, device)]
    output = ops_dcnv3.dcnv3(*leaves, **coarse.settings)
    grad_output = torch.zeros_like(output)
    with little_memory(device, 256 * MIB):
        expect_out_of_memory(lambda: torch.autograd.grad(output, leaves, grad_output))
    tensors, grad_output = make_tensors(CASE, device, torch.float32)
    assert_exact(run(tensors, grad_output, CASE), tensors, grad_output, CASE)


def expect_out_of_memory(call) -> None:
    """Raises unless the call ends with `torch.OutOfMemoryError`."""
    try:
        call()
    except torch.OutOfMemoryError:
        return
    raise AssertionError("expected torch.OutOfMemoryError, got a result")


def make_zeros(case: Case, device: torch.device) -> list[Tensor]:
    """Float32 zeros in the shapes of (input, offset, mask)."""
    geometry = case.static_arguments
    size = geometry.output_size(case.height, case.width)
    points = case.groups * geometry.num_points
    shapes = (
        (case.batch, case.height, case.width, case.groups * case.group_channels),
        (case.batch, *size, points * 2),
        (case.batch, *size, points),
    )
    return [torch.zeros(shape, device=device) for shape in shapes]


def need(device: torch.device, size: int) -> None:
    """Skips where this many bytes are not free."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(device)[0]
        if free < size:
            raise Skip(f"needs {size / 2**30:.0f} GiB of device memory, {free / 2**30:.0f} free")


def huge_input(device: torch.device, *, limit: int = LIMIT) -> None:
    """An input of more than 2^31 elements, and its gradient, by the small images it is made of.

    Each image on its own is small enough for any index; their results are the truth. The batch is
    sampled with a stride, which keeps offsets and output small.
    """
    case = Case(1, 64, 512, groups=2, group_channels=16, stride=5, softmax=True)
    images = limit // (64 * 512 * 32) + 2
    dtype = torch.bfloat16
    need(device, images * 64 * 512 * 32 * (2 + 2 + 4 + 4) + 2**32)
    batch = make_batch(case, images, device, dtype)
    assert batch[0].numel() > limit
    compare_images(case, batch, (0, 1, images // 2, images - 2, images - 1))


def huge_image(device: torch.device, *, limit: int = LIMIT) -> None:
    """One image of more than 2^31 elements, compared where it is not zero: its last rows."""
    width, groups = 1024, 2
    height = limit // (width * 32) + 8
    dtype, rows = torch.bfloat16, 40
    case = Case(1, height, width, groups, 16, stride=7)
    need(device, height * width * 32 * (2 + 2 + 4 + 4) + 2**32)
    first = (height - rows) // 7 + 1  # an output row; the cut-out begins where its grid does
    cut = Case(1, height - first * 7, width, groups, 16, stride=7)
    generator = torch.Generator(device).manual_seed(0)
    image = torch.zeros((1, height, width, 32), dtype=dtype, device=device)
    image[:, -rows:].normal_(generator=generator)
    size = case.geometry.output_size(height, width)
    assert image.numel() > limit
    offset = torch.rand((1, *size, groups * 18), generator=generator, device=device) - 0.5
    mask = torch.rand((1, *size, groups * 9), generator=generator, device=device)
    grad_output = torch.zeros((1, *size, 32), dtype=dtype, device=device)
    inner = first + 2  # the cut-out's own border is not the image's: leave two output rows
    grad_output[:, inner:].normal_(generator=generator)
    results = run((image, offset, mask), grad_output, case)
    part = [t[:, first:] for t in (offset, mask, grad_output)]
    expected_tensors = (image[:, first * 7 :].contiguous(), part[0], part[1])
    bounds = allowed_errors(expected_tensors, part[2], cut)
    exact, allowed = bounds[:4], bounds[4:]
    actual = (
        results[0][:, first:],
        results[1][:, first * 7 :],
        results[2][:, first:],
        results[3][:, first:],
    )
    for name, ours, truth, bound, skipped in zip(
        ("output", "grad_input", "grad_offset", "grad_mask"),
        actual,
        exact,
        allowed,
        (2, 0, 2, 2),
        strict=True,
    ):
        error = (ours.double() - truth)[:, skipped:].abs().max()
        assert truth[:, skipped:].abs().max() > 0.1, name
        assert error <= bound, f"{name}: error {error:.3e}, allowed {bound:.3e}"
    assert not results[1][:, : (inner - 1) * 7 - 7].any(), "a gradient far from every output"


def huge_offsets(device: torch.device, *, limit: int = LIMIT) -> None:
    """Offsets of more than 2^31 elements, hence so many gradients of them too."""
    case = Case(1, 64, 64, groups=8, group_channels=1, softmax=True)
    images = limit // (64 * 64 * 8 * 18) + 2
    dtype = torch.bfloat16
    need(device, images * 64 * 64 * 8 * (1 + 18 + 9) * (2 + 2 + 4) + 2**32)
    batch = make_batch(case, images, device, dtype)
    assert batch[1].numel() > limit
    compare_images(case, batch, (0, images // 2, images - 1))


def make_batch(case: Case, images: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Input, offset, mask and gradient of the output, of so many images, in the dtype itself."""
    geometry = case.static_arguments
    size = geometry.output_size(case.height, case.width)
    channels, points = case.groups * case.group_channels, case.groups * geometry.num_points
    generator = torch.Generator(device).manual_seed(0)
    shapes = (
        (images, case.height, case.width, channels),
        (images, *size, points * 2),
        (images, *size, points),
        (images, *size, channels),
    )
    return [
        torch.empty(shape, dtype=dtype, device=device).normal_(generator=generator)
        for shape in shapes
    ]


def compare_images(case: Case, batch: list[Tensor], which: tuple[int, ...]) -> None:
    """Results of a batch, for some of its images, against those of the image alone."""
    leaves = [t.requires_grad_() for t in batch[:3]]
    output = ops_dcnv3.dcnv3(*leaves, **case.settings)
    results = (output.detach(), *torch.autograd.grad(output, leaves, batch[3]))
    for n in which:
        one = [t.detach()[n : n + 1] for t in batch]
        assert_exact([r[n : n + 1] for r in results], one[:3], one[3], case)


for _dtype in DTYPES:
    for _name, _case in (("stage-1", STAGE), ("800x1280", WIDE)):
        add(
            f"memory/peaks/{name_of(_dtype)}/{_name}",
            partial(peaks, case=_case, dtype=_dtype),
            needs_cuda=True,
        )
    add(f"memory/recycled/{name_of(_dtype)}", partial(recycled, dtype=_dtype))
add("memory/out_of_memory", out_of_memory, needs_cuda=True)
for _function in (huge_input, huge_image, huge_offsets):
    add(f"memory/{_function.__name__}", _function, needs_cuda=True, slow=True)
