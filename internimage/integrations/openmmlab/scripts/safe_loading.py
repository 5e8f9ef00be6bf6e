"""The checkpoint loader of mmengine's runner and of ``init_detector``, made safe.

Where a checkpoint holds more than tensors, mmengine's own loader falls back to running whatever
code it names. The one registered here in its place never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from numpy import dtypes

from internimage.checkpoint_file import open_checkpoint
from internimage.downloads import download, is_url
from internimage.hub import PTH_REPOSITORY, download_file, find_release
from internimage.hub import download as download_release
from internimage.integrations.openmmlab.scripts.released_models import RELEASED_MODELS

# Model zoos of others by their schemes.
_ZOOS = {
    "torchvision://": get_torchvision_models,
    "modelzoo://": get_torchvision_models,
    "open-mmlab://": get_external_models,
    "openmmlab://": get_external_models,
    "mmcls://": get_mmcls_models,
}
# mmengine's schemes of clusters, as it registers them: regular expressions.
_REFUSED = ("pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://")


def _statistic(owner: object, name: str) -> Any:
    """Stand in for ``getattr``, by which a pickle names the statistics of mmengine's logs."""
    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise ValueError(f"expected a statistic of mmengine's logs, got {name} of {owner!r}")
    return getattr(HistoryBuffer, name)


def _allowed() -> dict[str, Any]:
    """What mmengine's own checkpoints hold beside tensors: numbers and logs."""
    allowed: dict[str, Any] = {
        "mmengine.logging.history_buffer.HistoryBuffer": HistoryBuffer,
        "builtins.getattr": _statistic,
        "__builtin__.getattr": _statistic,  # torch.save's protocol 2 has the names of Python 2
        "numpy.dtype": np.dtype,
        "numpy.ndarray": np.ndarray,
    }
    # numpy 2 has renamed the module; by what an array and a number are made is the same.
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[f"{module}._reconstruct"] = np.zeros(1).__reduce__()[0]
        allowed[f"{module}.scalar"] = np.float64(0).__reduce__()[0]
    for name in dtypes.__all__:
        if name not in ("ObjectDType", "VoidDType"):  # an array of objects is a pickle of its own
            allowed[f"numpy.dtypes.{name}"] = getattr(dtypes, name)
    return allowed


def read_checkpoint(source: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running what is in it.

    Args:
        source: A file, an address, or the name of a released model.

    Returns:
        The mapping that it holds; the weights of what is no training checkpoint are under
        ``state_dict`` as well.

    Raises:
        FileNotFoundError: There is no such file, and nothing of this name was released.
        ConnectionError: It is to be downloaded, and there is no way to it.
        ValueError: It is damaged, no checkpoint, or holds code.
    """
    content = dict(open_checkpoint(find_file(source), allowed=_allowed())[0])
    if "state_dict" not in content:
        inner = content.get("model")
        content["state_dict"] = dict(inner if isinstance(inner, Mapping) else content)
    return content


def find_file(source: str | Path) -> Path:
    """Return the file of a path, an address, or a released name; download it where need be.

    Raises:
        FileNotFoundError: There is no such file, and nothing of this name was released.
        ConnectionError: It is to be downloaded, and there is no way to it.
    """
    path = Path(source).expanduser()
    if path.exists() and not path.is_dir():  # a folder may be called like a released model
        return path
    text = str(source)
    # Each zoo is a file of mmengine with the address of every name.
    for scheme, models in _ZOOS.items():
        if text.startswith(scheme):
            text = models()[text.removeprefix(scheme)]
    if is_url(text):
        if f"/{PTH_REPOSITORY}/" in urlsplit(text).path:
            return download_file(PTH_REPOSITORY, PurePosixPath(urlsplit(text).path).name)
        return download(text)
    name = text.removesuffix(".pth")
    if name in RELEASED_MODELS and "/" not in name:
        return download_file(PTH_REPOSITORY, f"{name}.pth")
    if find_release(name) is not None:
        return download_release(name)
    kind = "the folder " if path.is_dir() else ""
    raise FileNotFoundError(f"expected an existing checkpoint, got {kind}{source}")


def load_from_safe_reader(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Is called by mmengine wherever it loads a checkpoint.

    mmengine writes to the log what stands behind the first ten letters of the name.

    Args:
        filename: As :func:`read_checkpoint` takes it.
        map_location: A device for the tensors; None leaves them on the CPU.
    """
    return _to_device(read_checkpoint(filename), torch.device(map_location or "cpu"))


def register_safe_loading() -> None:
    """Put the safe loader in the place of mmengine's own, for every kind of address."""
    # mmengine tries them backwards through the alphabet: "", which fits all, comes last.
    prefixes = ["", "http://", "https://", *_ZOOS]
    CheckpointLoader.register_scheme(prefixes, load_from_safe_reader, force=True)
    CheckpointLoader.register_scheme(list(_REFUSED), _refuse, force=True)


def _refuse(filename: str, map_location: Any = None) -> dict[str, Any]:
    raise ValueError(f"expected a file, a name or an address, got {filename}; fetch it first")


def _to_device(node: Any, device: torch.device) -> Any:
    if isinstance(node, torch.Tensor):
        # Copied on a CPU as well: a tensor that is still mapped to its file, as the states of an
        # optimiser would be for the whole run, ends the process where the file is cut short.
        return node.to(device, copy=True)
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = _to_device(value, device)
    elif isinstance(node, list):
        node[:] = [_to_device(value, device) for value in node]
    return node
