"""Streams, CUDA graphs, a second device, no synchronisation, and which backend serves."""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from functools import partial

import torch
from dcnv3_cases import Case, deterministic_algorithms
from torch import Tensor

import ops_dcnv3
from ops_dcnv3.backends import serves

from .compare import allowed_errors, assert_exact, assert_within, make_tensors, name_of
from .numerics import run
from .table import Skip, add

CASE = Case(batch=4, height=28, width=28, groups=8, group_channels=16, softmax=True)
DTYPES = (torch.float32, torch.float16)
SLEEP = 1_000_000_000  # cycles: half a second, far longer than any call takes on the host


def expected_backend(device: torch.device) -> str:
    """What has to serve the device: by what was asked for, what was built and what the device is.

    Not by what the package says of itself: falling to a lesser backend has to be found.
    """
    wanted = os.environ.get("OPS_DCNV3_BACKEND", "").lower() or "auto"
    if wanted in ("triton", "reference"):
        return wanted
    info = ops_dcnv3.extension_info()
    if device.type != "cuda":
        return device.type if info["path"] else "reference"
    capability = torch.cuda.get_device_capability(device)
    if wanted == "native" or any(serves(arch, capability) for arch in info["cuda_archs"]):
        return "cuda"
    return "reference" if importlib.util.find_spec("triton") is None else "triton"


def forced_backend(device: torch.device) -> str:
    """The backend that has to serve this device has served it, and the report says so."""
    tensors, grad_output = make_tensors(CASE, device, torch.float32)
    run(tensors, grad_output, CASE)  # what serves is decided by the first call
    info = ops_dcnv3.extension_info()
    expected = expected_backend(device)
    assert expected in info["backends"], f"expected {expected}, got {info}"
    return f"{expected}: {info}"


def on_a_side_stream(device: torch.device, *, dtype: torch.dtype) -> None:
    """Work goes to the current stream, and no call waits for the device.

    The stream sleeps, then gets its arguments, then runs the operator: a kernel on any other stream
    reads the zeros that were there before.
    """
    tensors, grad_output = make_tensors(CASE, device, dtype)
    bounds = allowed_errors(tensors, grad_output, CASE)
    given = (*tensors, grad_output)
    late = [torch.zeros_like(t) for t in given]
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        run(late[:3], late[3], CASE)  # loads the kernels and gives the stream its memory
        torch.cuda.synchronize(device)
        torch.cuda._sleep(SLEEP)
        for buffer, value in zip(late, given, strict=True):
            buffer.copy_(value)
        results = run(late[:3], late[3], CASE)
        waited = stream.record_event().query()
    stream.synchronize()
    assert not waited, "the call returned only after the device had finished"
    assert_within(results, bounds, tensors)


def no_synchronisation(device: torch.device, *, dtype: torch.dtype) -> None:
    """PyTorch's own alarm for calls that wait for the device stays silent."""
    tensors, grad_output = make_tensors(CASE, device, dtype)
    run(tensors, grad_output, CASE)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                ops_dcnv3.dcnv3(*tensors, **CASE.settings)
        results = run(tensors, grad_output, CASE)
        with deterministic_algorithms():
            run(tensors, grad_output, CASE)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert_exact(results, tensors, grad_output, CASE)


def graph_replay(device: torch.device, *, dtype: torch.dtype, deterministic: bool) -> None:
    """Forward and backward in one CUDA graph, replayed with other numbers in its tensors."""
    tensors, grad_output = make_tensors(CASE, device, dtype)
    leaves = [t.clone().requires_grad_() for t in tensors]
    upstream = grad_output.clone()

    def step() -> tuple[Tensor, ...]:
        output = ops_dcnv3.dcnv3(*leaves, **CASE.settings)
        return (output, *torch.autograd.grad(output, leaves, upstream))

    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)
    mode = deterministic_algorithms() if deterministic else nullcontext()
    with torch.cuda.device(device), mode:
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph):
            results = step()
        for seed in (1, 2, 3):
            tensors, grad_output = make_tensors(CASE, device, dtype, seed=seed)
            with torch.no_grad():
                for leaf, value in zip((*leaves, upstream), (*tensors, grad_output), strict=True):
                    leaf.copy_(value)
            graph.replay()
            torch.cuda.synchronize(device)
            assert_exact([r.detach() for r in results], tensors, grad_output, CASE)


def second_device(device: torch.device) -> None:
    """Tensors on cuda:1 while cuda:0 is current; afterwards cuda:0 still is."""
    if torch.cuda.device_count() < 2:
        raise Skip("needs a second CUDA device")
    other = torch.device("cuda", 1)
    with torch.cuda.device(0):
        for dtype in DTYPES:
            tensors, grad_output = make_tensors(CASE, other, dtype)
            results = run(tensors, grad_output, CASE)
            assert all(r.device == other for r in results)
            assert torch.cuda.current_device() == 0
            assert_exact(results, tensors, grad_output, CASE)
        image, offset, mask = tensors
        try:
            ops_dcnv3.dcnv3(image, offset.to("cuda:0"), mask, **CASE.settings)
        except ValueError:
            return
    raise AssertionError("offsets on another device were accepted")


add("devices/forced_backend", forced_backend)
add("devices/second_device", second_device, needs_cuda=True)
for _dtype in DTYPES:
    for _function in (on_a_side_stream, no_synchronisation):
        _name = f"devices/{_function.__name__}/{name_of(_dtype)}"
        add(_name, partial(_function, dtype=_dtype), needs_cuda=True)
    for _deterministic in (False, True):
        add(
            f"devices/graph_replay/{name_of(_dtype)}"
            + ("/deterministic" if _deterministic else ""),
            partial(graph_replay, dtype=_dtype, deterministic=_deterministic),
            needs_cuda=True,
        )
