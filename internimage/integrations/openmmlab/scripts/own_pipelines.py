"""``train_pipeline`` and ``test_pipeline`` at the top of a config, carried to the data sets.

A base writes them into its data sets when it is read. Whoever inherits from it and sets one of the
two would change a name that nobody reads any more; here it reaches the data sets that still have
what a base gave them under that name. A data set with a pipeline of its own keeps it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

PIPELINES = {
    "train_pipeline": ("train_dataloader",),
    "test_pipeline": ("val_dataloader", "test_dataloader"),
}
"""Each name and the loaders whose data sets it is for."""


def pipelines_of(config: Config) -> dict[str, Any]:
    """Return copies of what a config has under the names of pipelines."""
    return {name: copy.deepcopy(config.get(name)) for name in PIPELINES}


def apply_own_pipelines(
    config: Config, path: Path, *, before: Mapping[str, Any], given: Collection[str] = ()
) -> None:
    """Carry the two pipelines to the data sets that have their bases' ones.

    Args:
        config: Changed in place.
        path: Its file, whose bases are looked into.
        before: The pipelines before the command line changed them.
        given: Keys of the command line; a pipeline among them that no data set takes warns.

    Raises:
        ValueError: A pipeline is no list of transforms.
    """
    for name, loaders in PIPELINES.items():
        own = config.get(name)
        if own is None:
            continue
        if not isinstance(own, (list, tuple)) or not all(isinstance(step, dict) for step in own):
            raise ValueError(f"expected {name} = a list of transforms, got {own!r}")
        datasets = [node for loader in loaders for node in _with_pipeline(config.get(loader))]
        # Bases are programs to read and run: only where some data set differs.
        others = [node for node in datasets if _plain(node["pipeline"]) != _plain(own)]
        # Of an option such as train_pipeline.2.scale=... the data sets have the whole as it was.
        older = [_plain(before[name]), *inherited(path, name)] if others else []
        for node in others:
            if _plain(node["pipeline"]) in older:
                node["pipeline"] = copy.deepcopy(own)
                others = [other for other in others if other is not node]
        if len(others) == len(datasets) and any(key.split(".")[0] == name for key in given):
            warnings.warn(
                f"--cfg-options {name} has no effect: the data sets of {' and '.join(loaders)} "
                "have pipelines of their own",
                stacklevel=3,
            )


def _with_pipeline(loader: Any) -> Iterator[dict[str, Any]]:
    """Yield the data sets of a loader, and their wrappers, that have a pipeline."""
    waiting = [loader.get("dataset")] if isinstance(loader, dict) else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("pipeline"), (list, tuple)):
                yield node
            waiting += [node.get("dataset"), *(node.get("datasets") or ())]


def inherited(path: Path, name: str) -> Iterator[Any]:
    """Yield what a config's bases, and theirs, have under a name."""
    if Config._is_lazy_import(str(path)):
        return  # a config of imports and objects: it has no bases that are files
    for base in Config._get_base_files(str(path)):
        file = Path(Config._get_cfg_path(base, str(path))[0])
        yield _plain(Config.fromfile(file).get(name))
        yield from inherited(file, name)


def _plain(node: Any) -> Any:
    """Return lists and dicts without the mark of the library that a base is from."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key != "_scope_"}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node
