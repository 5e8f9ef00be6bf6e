"""Shared by all tests: the weights and images behind the parity records, trained models."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from tests.exported_models import exported  # noqa: F401
from tests.shell_runs import fakes  # noqa: F401
from tests.trained_runs import (  # noqa: F401
    digit_scenes,
    driving_scenes,
    sort_trained_last,
    trained_lanes,
    trained_occupancy,
    trained_run,
    trained_segmentor,
    trained_vector_map,
    trainings,
)

# Graphs that PyTorch kept on disk from before a change of the operator are not to be found again.
functorch_config.enable_autograd_cache = False

FIXTURES = Path(__file__).parent / "fixtures"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that need a trained model last: it is trained beside all others."""
    sort_trained_last(items)


@pytest.fixture(scope="session", autouse=True)
def bases_are_looked_for_once() -> Iterator[None]:
    """A base of mmdet's is found at once where it was found before.

    mmengine reads the 126 metafiles of mmdet for each ``mmdet::`` of each config: half a second.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, "_get_cfg_path", staticmethod(functools.cache(Config._get_cfg_path)))
        yield


@pytest.fixture(scope="module", autouse=True)
def no_scope_is_left() -> Iterator[None]:
    """A file ends the registries' scope, which mmengine keeps for the whole process."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def no_logger_is_left() -> Iterator[None]:
    """A logger of mmengine ends with its test: it keeps the stdout of then, which pytest closes."""
    yield
    MMLogger._instance_dict.clear()


def parity_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the value of one state-dict entry in the parity records (float64)."""
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    normal = generator.standard_normal(shape)
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        value = np.zeros(shape)
    elif leaf == "running_var":
        value = 0.5 + generator.random(shape)
    elif leaf in ("gamma1", "gamma2"):
        value = 0.5 + 0.1 * normal
    elif leaf == "weight" and len(shape) == 1:
        value = 1.0 + 0.1 * normal
    elif len(shape) <= 1:
        value = 0.1 * normal
    else:
        value = normal / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value))


def parity_image(batch: int, height: int, width: int, seed: int) -> Tensor:
    """Return the images of a parity record (batch, 3, height, width), float64."""
    values = np.random.default_rng(seed).standard_normal((batch, 3, height, width))
    return torch.from_numpy(values)


def fill_model(model: nn.Module) -> nn.Module:
    """Give every entry of the model its parity value."""
    state = {key: parity_weight(key, tuple(v.shape)) for key, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="session")
def weight() -> Callable[[str, tuple[int, ...]], Tensor]:
    """Function from the name and shape of a state-dict entry to its deterministic value."""
    return parity_weight


@pytest.fixture(scope="session")
def fill() -> Callable[[nn.Module], nn.Module]:
    """Function that gives a model the deterministic weights."""
    return fill_model


@pytest.fixture(scope="session")
def image() -> Callable[[int, int, int, int], Tensor]:
    """Function (batch, height, width, seed) that makes the deterministic images."""
    return parity_image


@pytest.fixture(scope="session")
def released_keys() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Function from a size (``"t"``) to the keys and shapes of its released classifier."""

    def read(size: str) -> dict[str, tuple[int, ...]]:
        text = (FIXTURES / "parity" / "keys" / f"internimage_{size}.json").read_text()
        return {key: tuple(shape) for key, shape in json.loads(text).items()}

    return read


@pytest.fixture(scope="session")
def parity_record() -> Callable[[str], tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Function from a record's name to its description and its arrays."""

    def read(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        folder = FIXTURES / "parity" / "model"
        with np.load(folder / f"{name}.npz") as arrays:
            return json.loads((folder / f"{name}.json").read_text()), dict(arrays)

    return read


@pytest.fixture(scope="session")
def filled_model() -> Callable[[str], nn.Module]:
    """Function from a size to its model with the deterministic weights, in evaluation mode.

    Models are shared between tests: do not change them.
    """
    models: dict[str, nn.Module] = {}

    def build(name: str) -> nn.Module:
        if name not in models:
            import internimage

            models[name] = fill_model(internimage.create_model(name, num_classes=7)).eval()
        return models[name]

    return build
