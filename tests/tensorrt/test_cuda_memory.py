"""CUDA's runtime library through ctypes: a stand-in where a device is needed, else the real one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

import cuda_memory
from cuda_memory import TO_DEVICE, TO_HOST, Buffer, Cuda, CudaError, open_cuda
from tests.tensorrt.stand_in_cudart import DRIVER_TOO_OLD, OUT_OF_MEMORY, StandInCudart


def test_a_copy_to_the_device_and_back_keeps_the_numbers():
    cuda = Cuda(StandInCudart())
    stream = cuda.make_stream()
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    host, device, back = Buffer(cuda, pinned=True), Buffer(cuda), Buffer(cuda, pinned=True)
    for buffer in (host, device, back):
        buffer.reserve(numbers.nbytes)
    host.array((2, 3), numbers.dtype)[...] = numbers
    cuda.copy(device.address, host.address, numbers.nbytes, TO_DEVICE, stream)
    cuda.copy(back.address, device.address, numbers.nbytes, TO_HOST, stream)
    cuda.wait(stream)
    assert np.array_equal(back.array((2, 3), numbers.dtype), numbers)


def test_a_buffer_grows_and_gives_back_what_it_had():
    library = StandInCudart()
    buffer = Buffer(Cuda(library))
    first = buffer.reserve(8)
    assert buffer.reserve(4) == first
    buffer.reserve(1 << 20)
    assert len(library.blocks) == 1
    buffer.release()
    assert library.blocks == {}
    assert buffer.reserve(0) != 0


def test_errors_of_cuda_are_raised_in_its_words():
    cuda = Cuda(StandInCudart(failing={"cudaMalloc": OUT_OF_MEMORY}))
    with pytest.raises(CudaError, match="the GPU cannot be used: error 2"):
        Buffer(cuda).reserve(8)


def test_a_machine_without_a_device_is_an_error():
    with pytest.raises(CudaError, match="expected an NVIDIA GPU, got none"):
        Cuda(StandInCudart(devices=0))


def test_the_device_has_a_name_and_a_clock():
    cuda = Cuda(StandInCudart())
    assert cuda.device_name() == "Stand-in GPU"
    first, last = cuda.make_event(), cuda.make_event()
    cuda.record(first, 0)
    cuda.record(last, 0)
    assert cuda.elapsed(first, last) == 1.0


def test_an_older_library_serves_a_driver_that_is_too_old_for_the_newest(
    monkeypatch: pytest.MonkeyPatch,
):
    libraries = {
        "new": StandInCudart(failing={"cudaGetDeviceCount": DRIVER_TOO_OLD}),
        "old": StandInCudart(),
    }
    monkeypatch.setattr(cuda_memory, "_candidates", lambda: ["missing", "new", "old"])

    def load(name: str) -> StandInCudart:
        if name not in libraries:
            raise OSError(name)
        return libraries[name]

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert open_cuda().library is libraries["old"]
    libraries["old"].failing["cudaGetDeviceCount"] = 999
    with pytest.raises(CudaError, match="error 35"):
        open_cuda()
    monkeypatch.setattr(cuda_memory, "_candidates", lambda: ["missing"])
    with pytest.raises(CudaError, match="expected CUDA's runtime library"):
        open_cuda()


def test_the_real_library_has_every_function_and_says_that_there_is_no_driver():
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA driver")
    library = None
    for name in cuda_memory._candidates():
        try:
            library = ctypes.CDLL(name)
            break
        except OSError:
            continue
    if library is None:
        pytest.skip("no libcudart here (it comes with PyTorch for CUDA, and with tensorrt)")
    for name in ("cudaMalloc", "cudaMallocHost", "cudaFree", "cudaFreeHost", "cudaMemcpyAsync",
                 "cudaStreamCreate", "cudaStreamSynchronize", "cudaEventCreate", "cudaGetDevice",
                 "cudaEventRecord", "cudaEventElapsedTime", "cudaGetDeviceProperties"):  # fmt: skip
        assert hasattr(library, name)
    with pytest.raises(CudaError, match="the GPU cannot be used: .*(driver|device)"):
        open_cuda()
