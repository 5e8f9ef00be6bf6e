"""A stand-in for NVIDIA's Python module, for what needs a GPU or a version that is not here.

An engine is the ONNX file itself and runs in ONNX Runtime, on the addresses that it is given: what
is tested with it is our side of the interface. Names and signatures are those of TensorRT 10 and
11; what TensorRT itself does, it cannot show.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = 1, 2


def dtype_of(node: Any) -> Any:
    """Numpy's type of an input or output of ONNX Runtime."""
    return {"tensor(float)": np.float32, "tensor(int64)": np.int64}[node.type]


class Context:
    """An execution context."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.streams: list[int] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = next(iter(self.shapes.values()))[0]
        node = self.engine.nodes[name]
        return tuple(batch if isinstance(n, str) else n for n in node.shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.streams.append(stream)
        found = self.engine.session.run(
            list(self.engine.outputs),
            {name: self._array(name, self.shapes[name]) for name in self.engine.inputs},
        )
        for name, array in zip(self.engine.outputs, found, strict=True):
            self._array(name, array.shape)[...] = array
        return not self.engine.fails

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(self.engine.get_tensor_dtype(name))
        content = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(
            self.addresses[name]
        )
        return np.frombuffer(content, dtype).reshape(shape)


class Engine:
    """A deserialized engine."""

    def __init__(self, plan: bytes, profiles: dict[str, tuple[tuple[int, ...], ...]], fails: bool):
        self.session = onnxruntime.InferenceSession(plan)
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.outputs = {node.name: node for node in self.session.get_outputs()}
        self.nodes = self.inputs | self.outputs
        self.profiles, self.fails = profiles, fails
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return dtype_of(self.nodes[name])

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert index == 0
        return list(self.profiles[name])

    def create_execution_context(self) -> Context:
        self.context = Context(self)
        return self.context


def module_of(
    version: str = "11.1.0",
    *,
    profiles: dict[str, tuple[tuple[int, ...], ...]] | None = None,
    fails: bool = False,
    starts: bool = True,
    load_library: Callable[[str], object | None] = lambda path: object(),
) -> Any:
    """Return a module.

    Args:
        version: that it says it has; 10 has the flag FP16.
        profiles: of the inputs of engines: smallest, usual and largest sizes.
        fails: running an engine does.
        starts: whether there is a driver.
        load_library: of the registry of plugins.
    """
    settings: list[tuple[str, object]] = []
    loggers: list[Any] = []
    flags = {"TF32": 6} | ({"FP16": 0} if version.startswith("10.") else {})

    class Runtime:
        def __init__(self, logger: Any):
            if not starts:
                logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.logger = logger
            loggers.append(logger)

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if not plan.startswith(b"\x08"):  # the first field of an ONNX file
                self.logger.log(Severity.ERROR, "the plan is of another version")
                return None
            return Engine(plan, profiles or {}, fails)

    class TimingCache:
        def __init__(self, content: bytes):
            self.content = content or b"cache:"

        def serialize(self) -> bytes:
            return self.content

    class Config:
        cache: TimingCache | None = None

        def create_timing_cache(self, content: bytes) -> TimingCache:
            if content and not content.startswith(b"cache:"):
                loggers[-1].log(Severity.WARNING, "Returning an empty timing cache.")
                content = b""
            return TimingCache(content)

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            self.cache = cache
            return True

        def set_flag(self, flag: int) -> None:
            settings.append(("set", flag))

        def clear_flag(self, flag: int) -> None:
            settings.append(("clear", flag))

        def set_memory_pool_limit(self, pool: str, size: int) -> None:
            settings.append((pool, size))

    class Network:
        def __init__(self, flags: int):
            settings.append(("network", flags))
            self.num_inputs = 1

        def get_input(self, index: int) -> Any:
            return SimpleNamespace(name="input", shape=(1, 3, 8, 8))

    class Builder:
        def __init__(self, logger: Any):
            Runtime(logger)

        def create_network(self, flags: int) -> Network:
            return Network(flags)

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Network, config: Config) -> bytes:
            if config.cache is not None:
                config.cache.content += b" m.onnx"
            return b"plan"

    class OnnxParser:
        def __init__(self, network: Network, logger: Any):
            pass

        def parse_from_file(self, path: str) -> bool:
            return Path(path).is_file()

    registry = SimpleNamespace(load_library=load_library)
    return SimpleNamespace(
        __version__=version,
        __file__="tensorrt/__init__.py",
        ILogger=ILogger,
        Runtime=Runtime,
        Builder=Builder,
        OnnxParser=OnnxParser,
        TensorIOMode=TensorIOMode,
        BuilderFlag=SimpleNamespace(**flags),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        nptype=lambda dtype: dtype,
        init_libnvinfer_plugins=lambda logger, namespace: True,
        get_plugin_registry=lambda: registry,
        settings=settings,
    )
