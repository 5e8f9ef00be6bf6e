"""The files of an engine: the plan itself, and beside it what a program needs to use it.

``X.engine`` is what TensorRT reads, nothing added, so that ``trtexec`` reads it too.
``X.engine.json`` holds the metadata of the ONNX file that it was built from, and how it was built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internimage.files import flush_to_disk, write_atomically
from nvidia_runtime import NAMES

FORMAT = 1  # of the facts; files of another one are refused: a build writes them anew


@dataclass(frozen=True)
class EngineFacts:
    """What stands beside an engine.

    Args:
        runtime: what built it, ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: of that library.
        typing: ``"strong"``, or ``"fp16"`` where the builder was free to choose float16.
        tf32: whether float32 products may be rounded to TF32.
        profiles: sizes of the open inputs as on the command line.
        needs_plugin: whether a library of plugins was loaded to build it.
        metadata: of the exported model, as its JSON text; None for a model of others.
    """

    runtime: str
    version: str
    typing: str
    tf32: bool
    profiles: tuple[str, ...]
    needs_plugin: bool
    metadata: str | None


def facts_path(engine: Path) -> Path:
    """Where the facts of an engine are."""
    return engine.with_name(f"{engine.name}.json")


def write_engine(path: Path, plan: bytes, facts: EngineFacts) -> None:
    """Write an engine and its facts, each whole or not at all.

    An engine that has appeared can be used, and one that stays keeps its facts: they are written
    between the engine's bytes, which are what a disk is too full for, and its name.

    Raises:
        OSError: the disk is full or the folder is not writable; both files are as they were.
    """
    fields = {"format": FORMAT, **vars(facts)}
    text = json.dumps(fields, ensure_ascii=False, indent=1)

    def write_both(temporary: Path) -> None:
        temporary.write_bytes(plan)
        flush_to_disk(temporary)
        write_atomically(facts_path(path), lambda target: target.write_text(text, encoding="utf-8"))

    write_atomically(path, write_both)


def read_facts(engine: Path) -> EngineFacts:
    """Read what stands beside an engine.

    Raises:
        FileNotFoundError: the engine or the file beside it is missing.
        ValueError: the file holds something else.
    """
    path = facts_path(engine)
    if not engine.is_file():
        raise FileNotFoundError(
            f"expected an engine, got none at {engine}; tensorrt/build_engine.py builds one"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"expected {path.name} beside {engine}, as build_engine.py writes it, got none: copy "
            "both files"
        )
    try:
        fields: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']}")
        if fields["runtime"] not in NAMES:  # it will be imported
            raise ValueError(f"runtime {fields['runtime']!r}")
        return EngineFacts(
            runtime=str(fields["runtime"]),
            version=str(fields["version"]),
            typing=str(fields["typing"]),
            tf32=bool(fields["tf32"]),
            profiles=tuple(map(str, fields["profiles"])),
            needs_plugin=bool(fields["needs_plugin"]),
            metadata=None if fields["metadata"] is None else str(fields["metadata"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected the facts of an engine of format {FORMAT}, got {path} ({error})"
        ) from error
