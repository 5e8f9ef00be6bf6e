"""CUDA's runtime library in the host's own memory: what cuda_memory.py calls, done at once."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

OUT_OF_MEMORY, INVALID_VALUE, DRIVER_TOO_OLD = 2, 1, 35


class StandInCudart:
    """Addresses are real, copies are copies; events pass one millisecond after the other.

    Args:
        devices: how many there are.
        failing: names of functions -> the code that they return.
    """

    def __init__(self, devices: int = 1, failing: dict[str, int] | None = None):
        self.devices, self.failing = devices, failing or {}
        self.blocks: dict[int, Any] = {}
        self.calls: list[str] = []
        self.times: dict[int, float] = {}
        self._numbers = itertools.count(1)
        self.cudaGetErrorString = _Text()

    def __getattr__(self, name: str) -> Any:
        if name not in _FUNCTIONS:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.failing:
                return self.failing[name]
            return _FUNCTIONS[name](self, *arguments)

        return call

    def device_count(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def allocate(self, pointer: Any, size: ctypes.c_size_t) -> int:
        block = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(block)
        self.blocks[ctypes.addressof(block)] = block
        return 0

    def free(self, pointer: ctypes.c_void_p) -> int:
        return 0 if self.blocks.pop(pointer.value, None) else INVALID_VALUE

    def copy(
        self, target: Any, source: Any, size: ctypes.c_size_t, direction: int, stream: Any
    ) -> int:
        ctypes.memmove(target.value, source.value, size.value)
        return 0

    def make(self, handle: Any) -> int:
        handle._obj.value = next(self._numbers)
        return 0

    def record(self, event: ctypes.c_void_p, stream: Any) -> int:
        self.times[event.value or 0] = float(next(self._numbers))
        return 0

    def elapsed(self, time: Any, first: ctypes.c_void_p, last: ctypes.c_void_p) -> int:
        time._obj.value = self.times[last.value or 0] - self.times[first.value or 0]
        return 0

    def device(self, number: Any) -> int:
        number._obj.value = 0
        return 0

    def properties(self, content: Any, number: Any) -> int:
        content.value = b"Stand-in GPU"
        return 0

    def nothing(self, *arguments: Any) -> int:
        return 0


class _Text:
    """A C function that returns text."""

    restype: Any = None

    def __call__(self, code: int) -> bytes:
        return f"error {code}".encode()


_FUNCTIONS: dict[str, Any] = {
    "cudaGetDeviceCount": StandInCudart.device_count,
    "cudaMalloc": StandInCudart.allocate,
    "cudaMallocHost": StandInCudart.allocate,
    "cudaFree": StandInCudart.free,
    "cudaFreeHost": StandInCudart.free,
    "cudaMemcpyAsync": StandInCudart.copy,
    "cudaStreamCreate": StandInCudart.make,
    "cudaStreamSynchronize": StandInCudart.nothing,
    "cudaEventCreate": StandInCudart.make,
    "cudaEventRecord": StandInCudart.record,
    "cudaEventElapsedTime": StandInCudart.elapsed,
    "cudaGetDevice": StandInCudart.device,
    "cudaGetDeviceProperties": StandInCudart.properties,
}
