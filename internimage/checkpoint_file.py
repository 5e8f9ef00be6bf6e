"""Opening and writing checkpoint files; whatever a file holds, its code is never run.

A ``.pth`` file is a pickle, and a pickle names Python functions to call. Only tensors and plain
containers are let through (``weights_only=True``); the few harmless classes that released training
checkpoints hold beside their weights are replaced by empty stand-ins, so neither their code nor
their packages are needed.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from internimage.files import write_atomically

METADATA_KEY = "internimage"
"""Where both formats keep the JSON text of :class:`internimage.metadata.CheckpointMetadata`."""

HARMLESS_MAPPINGS = ("yacs.config.CfgNode",)
HARMLESS_OBJECTS = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)
"""Found in training checkpoints beside the weights: configs, options, paths, scores."""

_OPENMMLAB = ("mmengine.", "mmcv.", "mmdet.", "mmseg.")
"""How the names of objects begin that OpenMMLab's checkpoints hold."""

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
"""PyTorch's zip files, and the bare pickles that it wrote before version 1.6."""
_TEXT_STARTS = (b"version https://git-lfs", b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML")


class _Inert:
    """Takes the place of a harmless object: accepts any arguments and state, keeps nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __new__(cls, *args: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _stand_ins(
    allowed: Mapping[str, Callable[..., Any]],
) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    # One class a name: PyTorch's unpickler maps names to classes. A stand-in that is filled like a
    # mapping has to be an OrderedDict itself; subclasses are refused there.
    mappings = [(OrderedDict, name) for name in HARMLESS_MAPPINGS]
    objects = [
        (type(name.rpartition(".")[2], (_Inert,), {}), name)
        for name in HARMLESS_OBJECTS
        if name not in allowed
    ]
    return [*mappings, *objects, *((value, name) for name, value in allowed.items())]


def open_checkpoint(
    path: str | Path, *, allowed: Mapping[str, Callable[..., Any]] | None = None
) -> tuple[Mapping[str, Any], str | None]:
    """Read a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, whatever it is called.

    Args:
        path: the file.
        allowed: what a pickle may build beside tensors and plain containers, by its dotted name
            there; only what cannot do harm, whatever it is called with, belongs here.

    Returns:
        The mapping that the file holds, and its metadata as JSON text, if it has any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated, text, a folder, holds code or is no mapping.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"open_checkpoint: expected a file, got the folder {path}")
    if not path.exists():
        raise FileNotFoundError(f"open_checkpoint: expected an existing file, got {path}")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ValueError(f"open_checkpoint: expected a checkpoint, got the empty file {path}")
    if start.lstrip().startswith(_TEXT_STARTS):
        raise ValueError(
            f"open_checkpoint: expected a checkpoint, got text in {path}: a Git LFS pointer or a "
            "web page was saved in its place; download the file itself"
        )
    # The first byte of a safetensors file is that of a length and may be a pickle's as well.
    header_size = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and header_size <= path.stat().st_size:
        return _open_safetensors(path)
    if start.startswith(_PICKLE_STARTS):
        return _open_pickle(path, allowed or {})
    if start[8:9] == b"{":
        return _open_safetensors(path)  # truncated, and says so
    raise ValueError(
        f"open_checkpoint: expected a checkpoint (safetensors or PyTorch), got {path}, "
        f"which starts with {start[:16]!r}"
    )


def _open_safetensors(path: Path) -> tuple[Mapping[str, Any], str | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY)
        return load_file(path), metadata
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"open_checkpoint: expected a whole safetensors file, got {path} ({error})"
        ) from error


def _open_pickle(
    path: Path, allowed: Mapping[str, Callable[..., Any]]
) -> tuple[Mapping[str, Any], str | None]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins(allowed)):
            warnings.simplefilter("ignore", UserWarning)  # of foreign pickles; the error says it
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            name = str(error).partition("GLOBAL ")[2].split(" ")[0] or "code"
            advice = (
                "the commands of detection/ and segmentation/ read what OpenMMLab has saved"
                if name.startswith(_OPENMMLAB)
                else "save the weights alone, or as safetensors"
            )
            raise ValueError(
                f"open_checkpoint: expected tensors and plain containers, got {path} with the "
                f"pickled object {name}, which will not be loaded; {advice}"
            ) from error
        # PyTorch's own text advises to switch the protection off
        raise ValueError(
            f"open_checkpoint: expected a PyTorch checkpoint, got {path}, a damaged pickle or one "
            "of another program; nothing in it was run"
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        # Not PyTorch's own text, which is about its reader of zip files.
        raise ValueError(
            f"open_checkpoint: expected a whole checkpoint, got {path}, truncated or of another "
            f"format ({type(error).__name__})"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"open_checkpoint: expected a mapping of names to tensors, got "
            f"{type(content).__name__} in {path}"
        )
    metadata = content.get(METADATA_KEY)
    return content, metadata if isinstance(metadata, str) else None


def _can_map(path: Path) -> bool:
    """Whether the file is PyTorch's zip format, which can be mapped instead of read."""
    return zipfile.is_zipfile(path)


def write_checkpoint(
    state_dict: Mapping[str, Tensor], path: str | Path, metadata: str | None
) -> None:
    """Write weights and metadata whole or not at all: to a temporary file, then renamed.

    Args:
        state_dict: names and tensors.
        path: ``*.safetensors``, or ``*.pth`` (a mapping with the weights under ``model``).
        metadata: JSON text.

    Raises:
        OSError: the disk is full or read-only; ``path`` is as it was.
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"save_checkpoint: expected *.safetensors or *.pth, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = _storable(state_dict)
    if path.suffix == ".safetensors":
        labels = {"format": "pt"} | ({METADATA_KEY: metadata} if metadata is not None else {})
        try:
            write_atomically(path, lambda file: save_file(tensors, file, labels))
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
    else:
        content: dict[str, Any] = {"model": tensors}
        if metadata is not None:
            content[METADATA_KEY] = metadata
        write_pickle(content, path)


def write_pickle(content: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain containers as PyTorch does, whole or not at all.

    Raises:
        OSError: the disk is full or read-only; ``path`` is as it was.
    """

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            try:
                torch.save(dict(content), stream)
            except RuntimeError as error:
                # PyTorch closes its archive after a failed write, and fails again on what is
                # missing there ("unexpected pos"). The reason is the first error: the disk, or a
                # signal to stop.
                raise error.__context__ or error from None

    write_atomically(path, write)


def _storable(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every tensor contiguous memory of its own on the CPU, copying only those without it.

    safetensors refuses tensors that share memory, and a pickled view takes its whole storage along.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state_dict.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        tensors[key] = tensor
    return tensors
