"""Weights and inputs of the forward records, which are functions of their names."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RECORDS = Path(__file__).parents[1] / "fixtures" / "parity" / "driving"


def hashed(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers in [-1, 1), float64, that depend on nothing but the name: splitmix64."""
    with np.errstate(over="ignore"):
        index = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64)
        z = index + np.uint64(zlib.crc32(name.encode()) << 32)
        z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)


def hashed_parameter(salt: str, key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the value of a parameter, float32, by its name in the original."""
    value = hashed(f"{salt}:{key}", shape)
    leaf = key.rpartition(".")[2]
    if leaf == "code_weights":
        value = np.ones(shape)
    elif leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        value = 1 + 0.3 * value
    elif key.endswith("sampling_offsets.bias"):
        value = 4 * value
    elif len(shape) >= 2:
        value = value * np.sqrt(3 / np.prod(shape[1:]))
    else:
        value = 0.3 * value
    return torch.from_numpy(value.astype(np.float32))


def read_forward_record(name: str) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
    """Return the arrays of a record and its parameters by their names in the original."""
    with np.load(RECORDS / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    salt = str(arrays["salt"])
    shapes = [tuple(int(size) for size in str(text).split()) for text in arrays["key_shapes"]]
    keys = [str(key) for key in arrays["keys"]]
    return arrays, {
        key: hashed_parameter(salt, key, shape) for key, shape in zip(keys, shapes, strict=True)
    }


def hashed_input(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> Tensor:
    """Return an input of a record, 1.7 times its hash, float32."""
    return torch.from_numpy((1.7 * hashed(f"{arrays['salt']}:{name}", shape)).astype(np.float32))
