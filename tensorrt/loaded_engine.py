"""An engine on a GPU: from arrays by name to arrays by name.

Its inputs and outputs are named tensors whose addresses are set, and the work is enqueued on one
stream (``execute_async_v3``): the interface that TensorRT 10 and 11 and TensorRT for RTX share.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cuda_memory import TO_DEVICE, TO_HOST, Buffer, Cuda
from nvidia_runtime import Runtime, last_errors
from profiles import OPEN, Profile, Shape


class Engine:
    """An engine that is ready to run.

    Args:
        runtime: the library that it was built with.
        path: of the engine's file.
        cuda: the device's memory.

    Raises:
        OSError: the file cannot be read, or the library cannot start.
        ValueError: the library refuses the engine.
    """

    def __init__(self, runtime: Runtime, path: Path, cuda: Cuda) -> None:
        self.path, self.cuda = path, cuda
        self._logger = runtime.make_logger()
        self._runtime, self._engine, self._context = _load(runtime, path, self._logger)
        mode = runtime.module.TensorIOMode
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        self.inputs = [n for n in names if self._engine.get_tensor_mode(n) == mode.INPUT]
        self.outputs = [n for n in names if self._engine.get_tensor_mode(n) == mode.OUTPUT]
        self.dtypes: dict[str, np.dtype[Any]] = {
            name: np.dtype(runtime.module.nptype(self._engine.get_tensor_dtype(name)))
            for name in names
        }
        # Not given back, nor are the buffers: a script has one engine, and ends with it.
        self.stream = cuda.make_stream()
        self._device = {name: Buffer(cuda) for name in names}
        self._host = {name: Buffer(cuda, pinned=True) for name in names}
        self._shapes: dict[str, Shape] = {}

    def profile(self, name: str) -> Profile:
        """The sizes that an input may have."""
        shapes = self._engine.get_tensor_profile_shape(name, 0)  # build_engine.py makes one alone
        smallest, usual, largest = (tuple(shape) for shape in shapes)
        return Profile(name, smallest, usual, largest)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the engine once.

        Args:
            inputs: by name, all of the engine's; others are an error.

        Raises:
            OSError: CUDA fails.
            ValueError: an input is missing, unknown or of a size outside the profile.
        """
        self.fill(inputs)
        self.upload()
        self.enqueue()
        self.download()
        self.cuda.wait(self.stream)
        # Copies: the next run writes into the same memory.
        return {name: self._array(name).copy() for name in self.outputs}

    def fill(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Take the inputs over into page-locked memory, and make room for the outputs."""
        if set(inputs) != set(self.inputs):
            raise ValueError(
                f"expected the inputs {', '.join(self.inputs)} for {self.path}, got "
                f"{', '.join(inputs)}"
            )
        for name, array in inputs.items():
            profile = self.profile(name)
            if not profile.admits(array.shape):
                raise ValueError(
                    f"expected {profile} (smallest:usual:largest) for {self.path}, got "
                    f"{'x'.join(map(str, array.shape))}; --profile of build_engine.py says which "
                    "sizes an engine serves"
                )
            if not self._context.set_input_shape(name, tuple(array.shape)):
                raise ValueError(
                    f"{self.path} refuses {name} {array.shape}: {last_errors(self._logger)}"
                )
            self._place(name, tuple(array.shape))
            # float64 may become float32 and int64 int32, but no float a whole number.
            np.copyto(self._array(name), array, casting="same_kind")
        # Sizes of outputs are known when all inputs have theirs.
        for name in self.outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            if OPEN in shape:
                raise ValueError(
                    f"expected outputs whose size follows from the inputs', got {name} of {shape} "
                    f"in {self.path}"
                )
            self._place(name, shape)

    def upload(self) -> None:
        """Enqueue the copies of the inputs to the device."""
        for name in self.inputs:
            device, host = self._device[name].address, self._host[name].address
            self.cuda.copy(device, host, self._bytes(name), TO_DEVICE, self.stream)

    def enqueue(self) -> None:
        """Enqueue the model itself.

        Raises:
            ValueError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(self.stream):
            raise ValueError(f"{self.path} cannot be run: {last_errors(self._logger)}")

    def download(self) -> None:
        """Enqueue the copies of the outputs to the host."""
        for name in self.outputs:
            device, host = self._device[name].address, self._host[name].address
            self.cuda.copy(host, device, self._bytes(name), TO_HOST, self.stream)

    def _place(self, name: str, shape: Shape) -> None:
        """Make room for a tensor and tell TensorRT where."""
        self._shapes[name] = shape
        size = self._bytes(name)
        self._host[name].reserve(size)
        if not self._context.set_tensor_address(name, self._device[name].reserve(size)):
            raise ValueError(
                f"{self.path} refuses an address for {name}: {last_errors(self._logger)}"
            )

    def _bytes(self, name: str) -> int:
        return int(np.prod(self._shapes[name])) * self.dtypes[name].itemsize

    def _array(self, name: str) -> np.ndarray:
        return self._host[name].array(self._shapes[name], self.dtypes[name])


def _load(runtime: Runtime, path: Path, logger: Any) -> tuple[Any, Any, Any]:
    """Return TensorRT's runtime, engine and context; each must outlive the next."""
    plan = path.read_bytes()
    # Before the plan is read: its nodes may be NVIDIA's own plugins, such as RoiAlign.
    if runtime.name == "tensorrt":
        runtime.module.init_libnvinfer_plugins(logger, "")
    try:
        library = runtime.module.Runtime(logger)
    except (RuntimeError, TypeError):  # pybind11's TypeError: NVIDIA's factory has returned null
        library = None
    if library is None:
        raise OSError(
            f"{runtime.title} cannot start on this machine: {last_errors(logger)}; it needs an "
            "NVIDIA GPU and its driver"
        )
    engine = library.deserialize_cuda_engine(plan)
    if engine is None:
        raise ValueError(
            f"expected an engine that {runtime.title} has built for this GPU, got {path}: "
            f"{last_errors(logger)}; build it again here"
        )
    context = engine.create_execution_context()
    if context is None:
        raise OSError(f"{runtime.title} has no memory to run {path}: {last_errors(logger)}")
    return library, engine, context
