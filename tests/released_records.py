"""Records of the original detectors and segmentors: weights, inputs and comparisons for all."""

from __future__ import annotations

import functools
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from internimage.integrations.openmmlab import convert_state_dict

FOLDER = Path(__file__).parent / "fixtures" / "parity"
TOLERANCE = 1e-4
"""Of a difference in float32, in standard deviations of the recorded tensor."""
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3

Weight = Callable[[str, tuple[int, ...]], Tensor]
Arrays = dict[str, np.ndarray]


@functools.cache
def read_json(name: str) -> dict[str, Any]:
    """Return one of the compressed JSON files: ``dense/keys``, ``detection/records``."""
    return json.loads(lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()))


def read_task_record(task: str, name: str) -> tuple[dict[str, Any], Arrays]:
    """Return the description and the arrays of a record of ``detection`` or ``segmentation``."""
    with np.load(FOLDER / task / f"{name}.npz") as arrays:
        return read_json(f"{task}/records")[name], dict(arrays)


def released_weights(record: dict[str, Any], weight: Weight) -> dict[str, Tensor]:
    """Return the record's weights, float32, under their original names."""
    weights = {
        key: weight(key, tuple(shape)).to(
            torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        )
        for key, shape in record["state_dict"].items()
    }
    if overrides := record.get("weight_overrides"):
        for key in weights:
            if re.search(overrides["regex"], key):
                weights[key] = weights[key] * overrides["multiply_by"]
    return weights


def recorded_images(record: dict[str, Any], image: Callable[..., Tensor]) -> Tensor:
    """Return the record's images (N, 3, H, W), float32."""
    batch, _, height, width = record["input"]["shape"]
    return image(batch, height, width, record["input"]["seed"]).float()


def without_sync_bn(value: Any) -> Any:
    """Return a config with ordinary batch norm for synchronised, which cannot learn on a CPU."""
    if isinstance(value, dict):
        return {key: without_sync_bn(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_sync_bn(item) for item in value]
    return "BN" if value == "SyncBN" else value


@contextmanager
def captured(**modules: nn.Module) -> Iterator[dict[str, list[Any]]]:
    """Collect what modules return, each time they are called, by the name given here."""
    found: dict[str, list[Any]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _, __, result, name=name: found[name].append(result))
        for name, module in modules.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def assert_equals_record(name: str, value: Tensor, record: dict[str, Any], arrays: Arrays) -> None:
    """Compare a tensor with a recorded one of the same name, in units of that one's spread."""
    entry = record["arrays"][name]
    assert list(value.shape) == entry["shape"], name
    values = value.detach().double().numpy()
    if entry["stored"] == "sample":
        values = values.reshape(-1)[arrays[f"{name}__idx"]]
    expected = arrays[name].astype(np.float64)
    spread = entry["stats"]["std"] or 1.0
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=TOLERANCE * spread, err_msg=name, strict=False
    )


def assert_losses_equal(losses: Mapping[str, Any], total: float, expected: dict[str, Any]) -> None:
    """Compare losses (numbers, or lists of them) and their sum with recorded ones.

    Args:
        losses: by their recorded names.
        total: what is minimised.
        expected: ``losses`` and ``total`` of the record.
    """
    assert set(losses) == set(expected["losses"])
    for name, value in expected["losses"].items():
        np.testing.assert_allclose(
            losses[name], value, rtol=LOSS_TOLERANCE, atol=1e-7, err_msg=name
        )
    assert total == pytest.approx(expected["total"], rel=LOSS_TOLERANCE)


def assert_gradients_equal(model: nn.Module, expected: dict[str, Any]) -> None:
    """Compare the norm of every parameter's gradient, and batch norms' buffers, with recorded ones.

    Args:
        model: behind a backward pass.
        expected: ``grad_norms``, ``grad_norms_source`` and maybe ``buffers_after_step`` of the
            record.
    """
    norms = convert_state_dict(
        {name: torch.tensor(norm) for name, norm in expected["grad_norms"].items()}
    )
    # In float32, as one record has it, the sum of millions of squares is off by 1e-3.
    source = getattr(torch, expected["grad_norms_source"])
    found = {
        name: float(parameter.grad.to(source).norm())
        for name, parameter in model.named_parameters()
    }
    assert set(found) == set(norms)
    for name, norm in found.items():
        wanted = pytest.approx(float(norms[name]), rel=GRADIENT_TOLERANCE, abs=1e-6)
        assert norm == wanted, name
    for name, values in expected.get("buffers_after_step", {}).items():
        np.testing.assert_allclose(
            model.get_buffer(name)[: len(values)], values, rtol=1e-4, atol=1e-6
        )
