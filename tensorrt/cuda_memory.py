"""Device memory, streams and events through CUDA's runtime library alone: needs no PyTorch.

``libcudart`` comes with TensorRT's wheels, with PyTorch's and with the CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAJORS = (13, 12)
"""Of CUDA, newest first; the newest that the driver can serve is taken."""

TO_DEVICE, TO_HOST = 1, 2  # of cudaMemcpyKind
DRIVER_TOO_OLD = 35  # cudaErrorInsufficientDriver; without any driver the answer is the same
SUCCESS = 0

_PROPERTIES_BYTES = 1 << 14
"""More than cudaDeviceProp of any version; the device's name is its beginning."""
_NAME_BYTES = 256


class CudaError(OSError):
    """CUDA refuses; its words.

    Args:
        text: what it says.
        code: of cudaError_t.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Buffer:
    """Memory that grows: of the device, or page-locked of the host.

    Args:
        cuda: the library.
        pinned: memory of the host.
    """

    def __init__(self, cuda: Cuda, *, pinned: bool = False) -> None:
        self.cuda, self.pinned = cuda, pinned
        self.address = 0
        self.size = 0  # bytes

    def reserve(self, size: int) -> int:
        """Make room for so many bytes and return the address; the content is lost if it grows."""
        if size > self.size or self.address == 0:
            self.release()
            # No less than a byte: an address of 0 means here that there is no memory.
            self.address = self.cuda.allocate(max(size, 1), pinned=self.pinned)
            self.size = size
        return self.address

    def release(self) -> None:
        """Give the memory back."""
        if self.address:
            self.cuda.free(self.address, pinned=self.pinned)
        self.address = self.size = 0

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """The beginning of page-locked memory as an array that shares it."""
        count = int(np.prod(shape)) * dtype.itemsize
        content = memoryview((ctypes.c_char * count).from_address(self.address))
        return np.frombuffer(content, dtype).reshape(shape)


# ctypes hands a bare int over as 32 bits: every address and size below is wrapped, or its upper
# half would be lost.
class Cuda:
    """The calls that running an engine needs, each of which raises CUDA's error.

    Args:
        library: ``libcudart``, loaded.

    Raises:
        CudaError: no device can be used.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p
        # What is wrong with the driver shows at the first call that needs it.
        count = ctypes.c_int(0)
        self.check(library.cudaGetDeviceCount(ctypes.byref(count)))
        if count.value == 0:
            raise CudaError("expected an NVIDIA GPU, got none")

    def check(self, code: int) -> None:
        """Raise what is not success."""
        if code != SUCCESS:
            text = self.library.cudaGetErrorString(code).decode()
            if code == DRIVER_TOO_OLD:
                text += ", or this machine has neither GPU nor driver"
            raise CudaError(f"the GPU cannot be used: {text}", code)

    def allocate(self, size: int, *, pinned: bool) -> int:
        """Return the address of so many bytes."""
        pointer = ctypes.c_void_p()
        amount = ctypes.c_size_t(size)
        function = self.library.cudaMallocHost if pinned else self.library.cudaMalloc
        self.check(function(ctypes.byref(pointer), amount))
        return int(pointer.value or 0)

    def free(self, address: int, *, pinned: bool) -> None:
        """Give memory back."""
        function = self.library.cudaFreeHost if pinned else self.library.cudaFree
        self.check(function(ctypes.c_void_p(address)))

    def copy(self, target: int, source: int, size: int, direction: int, stream: int) -> None:
        """Enqueue a copy of so many bytes."""
        self.check(
            self.library.cudaMemcpyAsync(
                ctypes.c_void_p(target),
                ctypes.c_void_p(source),
                ctypes.c_size_t(size),
                direction,
                ctypes.c_void_p(stream),
            )
        )

    def make_stream(self) -> int:
        """Return a new stream."""
        stream = ctypes.c_void_p()
        self.check(self.library.cudaStreamCreate(ctypes.byref(stream)))
        return int(stream.value or 0)

    def wait(self, stream: int) -> None:
        """Return when all work of the stream is done."""
        self.check(self.library.cudaStreamSynchronize(ctypes.c_void_p(stream)))

    def make_event(self) -> int:
        """Return a new event."""
        event = ctypes.c_void_p()
        self.check(self.library.cudaEventCreate(ctypes.byref(event)))
        return int(event.value or 0)

    def record(self, event: int, stream: int) -> None:
        """Let the event note when the stream comes here."""
        self.check(self.library.cudaEventRecord(ctypes.c_void_p(event), ctypes.c_void_p(stream)))

    def elapsed(self, first: int, last: int) -> float:
        """Milliseconds between two events that have passed."""
        time = ctypes.c_float()
        self.check(
            self.library.cudaEventElapsedTime(
                ctypes.byref(time), ctypes.c_void_p(first), ctypes.c_void_p(last)
            )
        )
        return float(time.value)

    def device_name(self) -> str:
        """What the current device is called."""
        device = ctypes.c_int(0)
        self.check(self.library.cudaGetDevice(ctypes.byref(device)))
        content = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self.check(self.library.cudaGetDeviceProperties(content, device))
        return content.raw[:_NAME_BYTES].split(b"\0")[0].decode()


def open_cuda() -> Cuda:
    """Load CUDA's runtime library.

    Raises:
        CudaError: there is none, or no device that it can use.
    """
    failure: CudaError | None = None
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        try:
            return Cuda(library)
        except CudaError as error:
            # An older library may serve a driver that is too old for the newest, and mends nothing
            # else. The newest one's words are kept: they are about what is installed.
            failure = failure or error
            if error.code != DRIVER_TOO_OLD:
                break
    raise failure or CudaError(
        "expected CUDA's runtime library (libcudart), got none: it comes with TensorRT's wheels; "
        "else pip install nvidia-cuda-runtime"
    )


def _candidates() -> Iterator[str]:
    """Names of the library, from most to least specific."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    for major in MAJORS:
        for folder in folders:
            for part in (f"cu{major}", "cuda_runtime"):  # NVIDIA's wheels of 13, and those of 12
                path = folder / part / "lib" / f"libcudart.so.{major}"
                if path.exists():
                    yield str(path)
        yield f"libcudart.so.{major}"
        yield f"{home}/lib64/libcudart.so.{major}"
