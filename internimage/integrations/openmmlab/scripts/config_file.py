"""A config file, the options of the command line, and what is wrong with them."""

from __future__ import annotations

import copy
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.config_parts import DRIVING, TASKS, task_of
from internimage.integrations.openmmlab.scripts.config_values import check_values
from internimage.integrations.openmmlab.scripts.old_config import check_generation, old_keys
from internimage.integrations.openmmlab.scripts.own_data import OWN_DATA_KEYS, apply_own_data
from internimage.integrations.openmmlab.scripts.own_pipelines import (
    PIPELINES,
    apply_own_pipelines,
    pipelines_of,
)
from internimage.script import nearest_hint

RUNNER_KEYS = (
    # Of Runner.from_cfg.
    "model",
    "work_dir",
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
    "train_cfg",
    "val_cfg",
    "test_cfg",
    "auto_scale_lr",
    "optim_wrapper",
    "param_scheduler",
    "val_evaluator",
    "test_evaluator",
    "default_hooks",
    "custom_hooks",
    "data_preprocessor",
    "load_from",
    "resume",
    "launcher",
    "env_cfg",
    "log_processor",
    "log_level",
    "visualizer",
    "default_scope",
    "randomness",
    "experiment_name",
    # What the runner asks its config for besides.
    "model_wrapper_cfg",
    "find_unused_parameters",
    "compile",
    "sync_bn",
    "activation_checkpointing",
    "efficient_conv_bn_eval",
    # Of these scripts, and of Config itself.
    "tta",
    "tta_model",
    "tta_pipeline",
    "custom_imports",
)
"""What a config may have at its top for mmengine's runner and for these scripts."""


def read_config(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    configs: Path | None = None,
) -> Config:
    """Read a config, apply the command line's options, the keys for own data and pipelines.

    Args:
        path: A Python, JSON or YAML file.
        options: Dotted key to value, as behind ``--cfg-options``.
        configs: Folder of configs of today's generation, where one of the same name is looked for
            when the file is of the old one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of OpenMMLab's old generation or cannot be read, an option has a
            key that nothing reads, or a value is out of range.
    """
    path = Path(path)
    if not path.is_file():
        if path.is_dir():
            raise ValueError(f"expected a config file, got the folder {path}")
        names = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"expected a config file, got none at {path}{nearest_hint(str(path), names)}"
        )
    # Twice: the file alone before it runs, which an old one could not do here, and then with all
    # that it has from its bases.
    check_generation(path, configs=configs)
    config = _read(path)
    check_generation(path, keys=list(config), configs=configs)
    options = dict(options or {})
    pipelines = pipelines_of(config)
    for key in options:
        _check_key(config, key)
        _warn_about_helper(key)
    try:
        config.merge_from_dict(options)
    # What mmengine raises where an option and the config have another structure.
    except (TypeError, KeyError, IndexError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"expected --cfg-options that fit {path}, got {', '.join(options)} ({_line(error)})"
        ) from error
    apply_own_pipelines(config, path, before=pipelines, given=options)
    apply_own_data(config, given=options)  # changes the pipelines that the data sets have now
    check_values(config)
    return config


def check_task(config: Config, configs: Path) -> None:
    """Refuse a config that another folder's scripts are for.

    Args:
        config: As it was read.
        configs: The folder of configs beside the script, ``detection/configs`` or the like.

    Raises:
        ValueError: What the config imports, or the library that it asks for, is another task's.
    """
    task, wanted = configs.parent.name, task_of(config)
    if wanted is not None and task in (*TASKS.values(), DRIVING) and task != wanted:
        scope = f" with default_scope = {config.get('default_scope')!r}"
        raise ValueError(
            f"expected a config of {task}, got {config.filename}"
            f"{'' if DRIVING in (task, wanted) else scope}: the scripts in {wanted}/ take it"
        )


def _read(path: Path) -> Config:
    try:
        config = Config.fromfile(str(path))
    except SyntaxError as error:
        where = f"line {error.lineno}" if error.lineno else "somewhere"
        raise ValueError(
            f"expected Python in {_unparsable(path) or path}, got {error.msg} in {where}"
        ) from error
    except FileNotFoundError as error:
        raise ValueError(
            f"expected the files that {path} inherits from or opens, got {_line(error)}"
        ) from error
    except ImportError as error:
        raise ValueError(
            f"expected the modules that {path} imports to be installed, got "
            f"{_line(error)}{_place(error)}"
        ) from error
    except Exception as error:  # a config is a program: anything can go wrong in it
        raise ValueError(
            f"expected a config in {path}, got {type(error).__name__}{_place(error)}: "
            f"{_line(error)}"
        ) from error
    return unformatted(config)


def unformatted(config: Config) -> Config:
    """Return a config that is printed as it is: a setting a line, in no other style.

    The runner prints its config at the start and into every checkpoint, and yapf, which mmengine
    lets format it, takes up to three seconds each time.
    """
    plain = copy.copy(config)
    # fromfile has an argument for this, and loses it on its way (mmengine 0.10). By object's way,
    # as mmengine does: a config's own would make a setting of it.
    object.__setattr__(plain, "_format_python_code", False)
    return plain


def _unparsable(path: Path) -> Path | None:
    """Return the file with the mistake in its syntax: a config, or one that it inherits from."""
    try:
        bases = Config._get_base_files(str(path))
    except SyntaxError:
        return path
    files = (Path(Config._get_cfg_path(base, str(path))[0]) for base in bases)
    return next(filter(None, map(_unparsable, files)), None)


def _place(error: BaseException) -> str:
    """Return ``" in FILE, line N"``: where in a config, or in what it imports, an error arose."""
    # mmengine compiles a config under its own name: the last such frame is where the error arose.
    modules = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"
    ]
    return f" in {modules[-1].filename}, line {modules[-1].lineno}" if modules else ""


def _check_key(config: Config, key: str) -> None:
    """Refuse an option whose place in the config does not exist.

    The last part of a key may be new: it is an argument that the config leaves at its default, and
    whoever is built from it refuses what is no argument of it.

    Raises:
        ValueError: The key leads nowhere; the message names the nearest.
    """
    *parents, last = key.split(".")
    node: Any = config._cfg_dict
    known: Sequence[str] = [*node, *RUNNER_KEYS, *OWN_DATA_KEYS]
    for index, part in enumerate([*parents, last]):
        above = ".".join(key.split(".")[:index])
        is_last = index == len(parents)
        if isinstance(node, (list, tuple)):
            if not part.isdecimal() or int(part) >= len(node):
                raise ValueError(
                    f"expected an index below {len(node)} in {above} for --cfg-options, got {key}"
                )
            node = node[int(part)]
        elif isinstance(node, Mapping):
            if index:
                known = list(node)
            if part not in node and not (is_last and index) and part not in known:
                new = (
                    f"; today's name of {part} is {old_keys()[part]}" if part in old_keys() else ""
                )
                raise ValueError(
                    f"expected keys of the config in --cfg-options, got {key}"
                    f"{new or nearest_hint(part, known)}"
                )
            if index and is_last and part not in node and "type" not in node:
                # What has a type is built, and refuses what is no argument of it; this is read.
                _warn_about_near_key(key, part, known)
            node = node.get(part, {})
        elif node is None:
            return  # a part that is switched off: merging refuses to go into it
        else:
            raise ValueError(
                f"expected keys of the config in --cfg-options, got {key}, but {above} = {node!r}"
            )


def _warn_about_near_key(key: str, part: str, known: Sequence[str]) -> None:
    if hint := nearest_hint(part, known):
        warnings.warn(f"--cfg-options adds {key} to the config{hint}", stacklevel=2)


def _warn_about_helper(key: str) -> None:
    """Warn of an option for a name that a config file uses for itself, and nobody else reads."""
    first = key.partition(".")[0]
    if first not in (*RUNNER_KEYS, *OWN_DATA_KEYS, *PIPELINES):
        warnings.warn(
            f"--cfg-options {key} has no effect: {first} is only used while the config file is "
            "read; change what is made of it, such as train_dataloader",
            stacklevel=2,
        )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
