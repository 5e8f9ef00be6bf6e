"""The config that a checkpoint carries, read without running it.

mmengine writes a run's config into its checkpoints as Python source, and executes that source to
read it back: whoever made the checkpoint would run code here. Only literals and ``dict(...)`` are
understood by this reader, and a ``type`` must be a registered name, which excludes functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from typing import Any

from mmengine.config import Config

PARTS = ("model", "test_dataloader", "tta_model", "tta_pipeline", "default_scope", "custom_imports")
"""What predicting needs of a config; the rest is not read."""

OWN_IMPORTS = "internimage.integrations.openmmlab"
"""The modules that a saved config may ask for: they are there, and ours."""

# A dotted path would be imported by mmengine and called with the config's values as arguments.
_REGISTERED_NAME = re.compile(r"(?:(?:mmengine|mmcv|mmdet|mmseg|mmpretrain)\.)?[A-Za-z_]\w*")
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
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"read_saved_config: expected in {origin} a config of literals as mmengine writes it, "
            f"got one that cannot be read without running it ({error}); give --config FILE"
        ) from error
    for path, name in _types(settings):
        if not isinstance(name, str) or not _REGISTERED_NAME.fullmatch(name):
            raise ValueError(
                f"read_saved_config: expected registered names as types in the config that "
                f"{origin} holds, got {path} = {name!r}; give --config FILE"
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
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.Name) and node.id in _NAMED_FLOATS:
        return _NAMED_FLOATS[node.id]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        # dict({...}) is how mmengine writes keys that are no identifiers.
        merged: dict[Any, Any] = {}
        for argument in node.args:
            merged |= _value(argument)
        return merged | {word.arg: _value(word.value) for word in node.keywords}
    raise ValueError(f"line {node.lineno}: {ast.unparse(node)[:80]}")


def _types(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield where and what every ``type`` in a config is."""
    if isinstance(value, dict):
        for key, item in value.items():
            inner = f"{path}.{key}".lstrip(".")
            if key == "type" and path:
                yield inner, item
            yield from _types(item, inner)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _types(item, f"{path}[{index}]")


def _check_imports(custom_imports: Any, origin: str) -> None:
    names = (custom_imports or {}).get("imports", ())
    names = [names] if isinstance(names, str) else list(names)
    foreign = [name for name in names if not f"{name}.".startswith(f"{OWN_IMPORTS}.")]
    if foreign:
        raise ValueError(
            f"read_saved_config: expected a config that imports nothing but {OWN_IMPORTS} in "
            f"{origin}, got {', '.join(map(repr, foreign))}; give --config FILE to run it"
        )
