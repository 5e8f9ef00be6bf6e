"""The config that a checkpoint carries, read without running it.

mmengine writes a run's config into its checkpoints as Python source, and executes that source to
read it back: whoever made the checkpoint would run code here. Only literals and ``dict(...)`` are
understood by this reader; a ``type`` must be a registered name, which excludes functions, and a
scope one of OpenMMLab's libraries, for mmengine imports what it finds under neither; and no string
may hold a call, for mmdet and mmcv evaluate some of them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
from collections.abc import Collection, Iterator
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

PARTS = ("model", "test_dataloader", "tta_model", "tta_pipeline", "default_scope", "custom_imports")
"""What predicting needs of a config; the rest is not read."""

OWN_IMPORTS = "internimage.integrations.openmmlab"
"""The modules that a saved config may ask for: they are there, and ours."""

ROOT_SCOPES = ("mmengine", "mmcv")
SCOPES = (*ROOT_SCOPES, "mmdet", "mmseg", "mmpretrain")
"""The libraries that a saved config may name: mmengine imports ``SCOPE.registry``."""

OTHER_TYPES = ("RoIAlign", "nms", "soft_nms")
"""Types that mmdet and mmcv look up by themselves, without a registry."""

_SCOPE_KEYS = ("default_scope", "_scope_")
# A dotted path would be imported by mmengine and called with the config's values as arguments.
_REGISTERED_NAME = re.compile(rf"(?:({'|'.join(SCOPES)})\.)?([A-Za-z_]\w*)")
# Never evaluated, and free text: names of classes, places of files.
_FREE_TEXT = frozenset({"metainfo", "checkpoint", "data_root", "ann_file", "data_prefix"})
_NAMED_FLOATS = {"inf": float("inf"), "nan": float("nan")}


def read_saved_config(text: str, *, origin: str, parts: Collection[str] = PARTS) -> Config:
    """Read the parts of a config that predicting needs.

    Args:
        text: ``meta["cfg"]`` of a checkpoint.
        origin: the checkpoint, for errors.
        parts: names of the settings to read.

    Raises:
        ValueError: the text is none that mmengine writes, or asks for code other than this
            package's.
    """
    try:
        statements = ast.parse(text).body
        settings = {
            statement.targets[0].id: _value(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and statement.targets[0].id in parts
        }
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"read_saved_config: expected in {origin} a config of literals as mmengine writes it, "
            f"got one that cannot be read without running it ({error}); give --config FILE"
        ) from error
    # Literals may still name what is called: mmengine imports a type or a scope that it does not
    # know, and calls the type.
    for path, value in _leaves(settings):
        key = path.rpartition(".")[2]
        if key == "type" and not _is_registered(value):
            expected = "registered names as types"
        elif key in _SCOPE_KEYS and value not in (None, *SCOPES):
            expected = f"{key} = {', '.join(SCOPES[:-1])} or {SCOPES[-1]}"
        elif isinstance(value, str) and "(" in value:
            expected = "no calls in strings"
        else:
            continue
        raise ValueError(
            f"read_saved_config: expected {expected} in the config that {origin} holds, got "
            f"{path} = {value!r}; give --config FILE"
        )
    _check_imports(settings.pop("custom_imports", None), origin)
    return Config(settings)


def _value(node: ast.expr) -> Any:
    """Return the value of an expression of literals and ``dict(...)``."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Set):
        return {_value(item) for item in node.elts}
    if isinstance(node, ast.Dict) and None not in node.keys:  # None is that of {**other}
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.Name) and node.id in _NAMED_FLOATS:
        return _NAMED_FLOATS[node.id]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        # dict({...}) is how mmengine writes keys that are no identifiers.
        merged: dict[Any, Any] = {}
        for argument in node.args:
            merged |= _value(argument)
        if all(word.arg is not None for word in node.keywords):  # None is that of dict(**other)
            return merged | {word.arg: _value(word.value) for word in node.keywords}
    raise ValueError(f"line {node.lineno}: {ast.unparse(node)[:80]}")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield where and what everything in a config is, free text and containers left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("type", *_SCOPE_KEYS):  # whatever it is
                yield f"{path}.{key}".lstrip("."), item
            elif key not in _FREE_TEXT:
                yield from _leaves(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple, set)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _is_registered(kind: Any) -> bool:
    """Whether a type is a name that one of the libraries has registered."""
    match = _REGISTERED_NAME.fullmatch(kind) if isinstance(kind, str) else None
    if match is None:
        return False
    scope, name = match.groups()
    # Of a name in the wrong place mmengine would still import the module of that name.
    if scope is None and importlib.util.find_spec(name) is not None:
        return False
    if kind in OTHER_TYPES:
        return True
    registries = list(_registries(scope))
    if any(name in registry.module_dict for registry in registries):
        return True
    # Not yet: a registry imports what belongs to it when it is first asked.
    for registry in registries:
        registry.import_from_location()
    return any(name in registry.module_dict for registry in registries)


def _registries(scope: str | None) -> Iterator[Registry]:
    """Yield the registries of a library, or of all without a scope."""
    if scope is not None and scope not in ROOT_SCOPES:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{scope}.registry")
    for root in vars(mmengine.registry).values():
        if not isinstance(root, Registry):
            continue
        if scope is None or scope in ROOT_SCOPES:
            yield root
        for name, child in root.children.items():
            if name in SCOPES and scope in (None, name):
                yield child


def _check_imports(custom_imports: Any, origin: str) -> None:
    names = (custom_imports or {}).get("imports", ())
    names = [names] if isinstance(names, str) else list(names)
    foreign = [name for name in names if not f"{name}.".startswith(f"{OWN_IMPORTS}.")]
    if foreign:
        raise ValueError(
            f"read_saved_config: expected a config that imports nothing but {OWN_IMPORTS} in "
            f"{origin}, got {', '.join(map(repr, foreign))}; give --config FILE to run it"
        )
