"""Makes the released mmdeploy run on today's PyTorch, and teaches it the operator.

mmdeploy 1.3.1, its last release, is of 2023: it was written for PyTorch 1.8 to 2.0. Between it and
PyTorch 2.13 stand the four things below. Nothing is changed before somebody converts by mmdeploy,
no file of either package is changed at all, and all of this can go with an mmdeploy that knows
PyTorch 2.9 or later:

1. ``torch.onnx.export`` exports by torch.export unless told ``dynamo=False``, which mmdeploy, whose
   rewriters are for the exporter before it, does not know (since PyTorch 2.9);
2. modules of that exporter moved under ``torch.onnx._internal.torchscript_exporter``; what is left
   in their places hands on some of the names, so that what mmdeploy puts into them has no effect;
3. ``symbolic_opset9._cast_Long``, by which mmdeploy writes RoIAlign for ONNX Runtime, is gone;
4. what ``torch.fx`` wraps is a dict, of which mmdeploy's clean-up pops the item -1 as of a list.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import nn

from internimage.export.packages import NEEDED
from ops_dcnv3.onnx_torchscript import LEAST_OPSET, Form, register_torchscript_symbolics
from ops_dcnv3.onnxruntime import library_path

MOVED = ("utils", "symbolic_helper", *(f"symbolic_opset{number}" for number in range(7, 21)))
"""Modules of ``torch.onnx`` that are elsewhere now."""

NEW_PLACE = "torch.onnx._internal.torchscript_exporter"

_STANDARD_SINCE = {"grid_sampler": LEAST_OPSET, "layer_norm": 17}
"""Operators that mmdeploy has its own way for, and the opset that made it needless."""

INSTALL = (
    f"pip install --no-deps mmdeploy==1.3.1 && pip install {' '.join(NEEDED)} aenum grpcio "
    "multiprocess prettytable terminaltables 'setuptools<81'"
)


def import_mmdeploy() -> ModuleType:
    """Import mmdeploy so that it works with this PyTorch; again does nothing more.

    Raises:
        ImportError: It, or what it needs, is not installed; the message has the command.
    """
    # First: mmdeploy takes what it needs of these modules while it is imported.
    _restore_moved_modules()
    _restore_cast()
    try:
        mmdeploy = importlib.import_module("mmdeploy")
        rewriter = importlib.import_module("mmdeploy.core.rewriters.function_rewriter")
        importlib.import_module("mmdeploy.apis")
    except ImportError as error:
        raise ImportError(
            f"expected mmdeploy, which converts with a deploy config, got {type(error).__name__}: "
            f"{error}; to install it: {INSTALL}; without it, `deploy.py MODEL_CFG CHECKPOINT "
            "--output X.onnx` exports as well"
        ) from error
    # Adaptation 4. Only models that torch.fx traces are concerned, and these are quantised ones.
    vars(rewriter)["_wrapped_fns_to_patch"] = []
    return mmdeploy


@contextlib.contextmanager
def torchscript_exporter() -> Iterator[None]:
    """Let ``torch.onnx.export`` take the exporter that mmdeploy's rewriters are for, within."""
    before = torch.onnx.export  # adaptation 1
    torch.onnx.export = functools.partial(before, dynamo=False)
    try:
        with warnings.catch_warnings():
            # Of the exporter itself, that it is the old one; of tracing, once a Python branch.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
            yield
    finally:
        torch.onnx.export = before


@contextlib.contextmanager
def own_operators(form: Form, opset: int) -> Iterator[None]:
    """Let mmdeploy's exporter know DCNv3, and write two operators in ONNX's own words, within.

    mmdeploy writes grid_sample as ``mmdeploy::grid_sampler``, of its own library, as opset 11 had
    none; and layer_norm in parts, whose squares overflow in half precision. ONNX Runtime gets our
    library of operators for nodes of DCNv3.

    Args:
        form: What DCNv3 becomes, as in :mod:`ops_dcnv3.onnx_torchscript`.
        opset: The version of ONNX's operators.
    """
    # There is no public way to take back what mmdeploy has registered.
    symbolics = importlib.import_module("mmdeploy.core").SYMBOLIC_REWRITER._registry
    records = symbolics._rewrite_records
    not_needed = [name for name, least in _STANDARD_SINCE.items() if opset >= least]
    before = {name: records.pop(name) for name in not_needed if name in records}
    register_torchscript_symbolics(form, opset)
    # Mask2Former's; from opset 9, the exporter's first, on.
    torch.onnx.register_custom_op_symbolic("aten::mT", _swap_last_axes, 9)
    wrapper = vars(importlib.import_module("mmdeploy.backend.onnxruntime.wrapper"))
    find_library = wrapper["get_ops_path"]
    # mmdeploy's wrapper loads one library of operators: ours in the place of its own. Models that
    # would need both are refused by check_opset().
    if form == "node":
        wrapper["get_ops_path"] = lambda: str(library_path())
    try:
        yield
    finally:
        wrapper["get_ops_path"] = find_library
        records.update(before)


def check_opset(model: nn.Module, form: Form, opset: int) -> None:
    """Refuse a model that would need two libraries of operators.

    Args:
        model: any.
        form: What DCNv3 becomes.
        opset: The version of ONNX's operators.

    Raises:
        ValueError: It has other layers with grid_sample, and the version is of before GridSample.
    """
    if form == "grid_sample" or opset >= LEAST_OPSET:
        return
    if any(isinstance(module, MultiScaleDeformableAttention) for module in model.modules()):
        raise ValueError(
            f"expected onnx_config.opset_version >= {LEAST_OPSET} for operator = 'node' of a model "
            f"with deformable attention (DINO, Mask2Former), got {opset}: below, mmdeploy writes "
            "the attention as an operator of its own library, and one library is loaded, that of "
            "DCNv3"
        )


def _restore_moved_modules() -> None:
    for name in MOVED:  # adaptation 2
        module = importlib.import_module(f"{NEW_PLACE}.{name}")
        # For `from torch.onnx.X import ...`, then for `torch.onnx.X`: mmdeploy has both.
        sys.modules[f"torch.onnx.{name}"] = module
        setattr(torch.onnx, name, module)


def _restore_cast() -> None:
    opset9 = importlib.import_module(f"{NEW_PLACE}.symbolic_opset9")
    vars(opset9).setdefault("_cast_Long", _cast_to_long)  # adaptation 3


def _swap_last_axes(graph: Any, value: Any) -> Any:
    """Write ``tensor.mT``, which the exporter by TorchScript does not know."""
    *axes, before_last, last = range(value.type().dim())
    return graph.op("Transpose", value, perm_i=[*axes, last, before_last])


def _cast_to_long(graph: Any, value: Any, non_blocking: bool) -> Any:
    """Cast a value of the graph to int64."""
    return graph.op("Cast", value, to_i=torch.onnx.TensorProtoDataType.INT64)


def repeat_masks_by_class(model: nn.Module) -> None:
    """Give a mask head that has one mask for all classes the same one for each, in place.

    mmdeploy forgets the first kind and fails. What a head computes is the same.

    Args:
        model: A detector; one without such a head stays as it is.
    """
    for module in model.modules():
        head: Any = module
        # FCNMaskHead and its kind, without an import of mmdet, which segmentors do without.
        if not getattr(head, "class_agnostic", False) or not hasattr(head, "conv_logits"):
            continue
        one: nn.Conv2d = head.conv_logits
        many = nn.Conv2d(one.in_channels, head.num_classes, 1).to(one.weight)
        weights = one.state_dict().items()
        many.load_state_dict(
            {key: value.expand_as(many.get_parameter(key)) for key, value in weights}
        )
        head.conv_logits, head.class_agnostic = many.eval(), False
