"""Calls the plugin's classes as TensorRT does, on the host: see plugin_host/probe.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# TensorRT's numbers for types and formats.
FLOAT, HALF, INT32 = 0, 1, 3
LINEAR, CHW4, HWC = 0, 3, 8
TYPES = {"float32": FLOAT, "float16": HALF}
FIELD_TYPES = {"float32": 1, "float64": 2, "int32": 5, "int64": 10}

RETURNS_TEXT = ("logged_text", "field_names", "serialized")
RETURNS_PLUGIN = ("create", "clone", "attach", "read_back")


class Probe:
    """The library.

    Args:
        path: Of the compiled plugin with probe.cpp.
    """

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        for name in RETURNS_TEXT:
            getattr(self.library, name).restype = ctypes.c_char_p
        for name in RETURNS_PLUGIN:
            getattr(self.library, name).restype = ctypes.c_void_p

    def field_names(self, creator: str) -> list[str]:
        """What the creator asks a node for."""
        return self.library.field_names(creator.encode()).decode().split()

    def create(self, creator: str, **fields: object) -> Plugin | None:
        """A plugin from fields: int is int32, float is float32, numpy's numbers are as they are."""
        numbers = [
            np.asarray(value, {int: np.int32, float: np.float32}.get(type(value)))
            for value in fields.values()
        ]
        types = [FIELD_TYPES[str(number.dtype)] for number in numbers]
        count = len(numbers)
        address = self.library.create(
            creator.encode(),
            (ctypes.c_char_p * count)(*(name.encode() for name in fields)),
            (ctypes.c_void_p * count)(*(number.ctypes.data for number in numbers)),
            (ctypes.c_int32 * count)(*types),
            count,
        )
        return Plugin(self.library, address) if address else None

    def log_to(self, kind: int) -> None:
        """0: standard error, 1: a logger, 2: a finder of loggers that throws; forget the rest."""
        self.library.use_logger(kind)

    @property
    def logged(self) -> str:
        """What the plugin has logged."""
        return self.library.logged_text().decode()


class Plugin:
    """One plugin of the library, released with this object."""

    def __init__(self, library: ctypes.CDLL, address: int):
        self.library, self.address = library, ctypes.c_void_p(address)

    def __del__(self) -> None:
        self.library.release(self.address)

    def _another(self, function: str) -> Plugin:
        return Plugin(self.library, getattr(self.library, function)(self.address))

    def copies(self) -> dict[str, Plugin]:
        """As TensorRT makes them: for a network, for a context, from a plan."""
        return {how: self._another(how) for how in ("clone", "attach", "read_back")}

    def serialized(self) -> dict[str, float]:
        """The fields of a plan."""
        lines = self.library.serialized(self.address).decode().split()
        return {name: float(value) for name, value in (line.split("=") for line in lines)}

    def has_all_capabilities(self) -> bool:
        """Core, build and runtime, of version 1 in the empty namespace with one output."""
        return bool(self.library.has_all_capabilities(self.address))

    def output_shape(
        self, *sizes: Sequence[int], ranks: Sequence[int] | None = None
    ) -> tuple[int, ...] | None:
        """The shape function; a size n that is known at run time only is given as -1 - n."""
        count = len(sizes)
        output = (ctypes.c_int64 * 4)()
        status = self.library.output_shape(
            self.address,
            (ctypes.c_int64 * (4 * count))(*(size for shape in sizes for size in shape)),
            (ctypes.c_int32 * count)(*(ranks or [4] * count)),
            count,
            output,
        )
        return tuple(output) if status == 0 else None

    def output_type(self, *types: int) -> int:
        """-1 where it is refused."""
        return self.library.output_type(
            self.address, (ctypes.c_int32 * len(types))(*types), len(types)
        )

    def supports(self, types: Sequence[int], formats: Sequence[int] | None = None) -> bool:
        """Whether all tensors, the output last, may be so."""
        count = len(types)
        return bool(
            self.library.supports(
                self.address,
                (ctypes.c_int32 * count)(*types),
                (ctypes.c_int32 * count)(*(formats or [LINEAR] * count)),
                count,
            )
        )

    def run(
        self, inputs: Sequence[np.ndarray], output: np.ndarray, stream: int | None = None
    ) -> int:
        """0; -1 where the shapes are refused, -2 where the run is."""
        tensors = (*inputs, output)
        return self.library.run(
            self.address,
            (ctypes.c_int64 * (4 * len(tensors)))(*(n for array in tensors for n in array.shape)),
            (ctypes.c_int32 * len(tensors))(*(TYPES[str(array.dtype)] for array in tensors)),
            len(inputs),
            (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs)),
            ctypes.c_void_p(output.ctypes.data),
            ctypes.c_void_p(stream),
        )
