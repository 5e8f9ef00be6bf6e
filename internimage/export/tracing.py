"""From a model in PyTorch to a graph of ONNX operators, in memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from internimage.export.options import ExportOptions
from internimage.export.quiet import quiet
from internimage.export.translations import build_translations

TRACED_OPSET = 18
"""What PyTorch's exporter writes; other versions are conversions of it."""

OpenAxes = Mapping[str, Mapping[int, str]]


def open_axes(dynamic_axes: OpenAxes, options: ExportOptions) -> dict[str, dict[int, str]]:
    """Return those axes of each input that the options leave open."""
    return {
        name: {axis: word for axis, word in axes.items() if word in options.opened}
        for name, axes in dynamic_axes.items()
    }


def trace(model: nn.Module, example: Mapping[str, Tensor], axes: OpenAxes) -> Any:
    """Trace a model without running it.

    Args:
        model: in evaluation mode.
        example: the inputs by name, in the order of the model's arguments.
        axes: the open axes of each input.

    Returns:
        A ``torch.export.ExportedProgram``.

    Raises:
        ValueError: an open axis has fewer than two entries in ``example``, or the model cannot be
            traced so.
    """
    for name, opened in axes.items():
        for axis, word in opened.items():
            if example[name].shape[axis] < 2:
                # One entry broadcasts, two do not: a trace of one would say so of any number.
                raise ValueError(
                    f"export_onnx: expected at least 2 along the open axis {word} of {name}, "
                    f"got shape {tuple(example[name].shape)}"
                )
    tensors = tuple(example.values())
    # torch.export wants shapes by the names of forward()'s arguments, not by ours, and in their
    # form: of a HalfModule, whose forward() has *args, that is one tuple of tensors.
    bound = inspect.signature(model.forward).bind(*tensors)
    names = {id(tensor): name for name, tensor in example.items()}

    def shapes_of(value: Any) -> Any:
        if isinstance(value, Tensor):
            opened = axes.get(names[id(value)], {})
            # An error where the model fixes such a size; Dim.AUTO would fix it without a word.
            return dict.fromkeys(opened, torch.export.Dim.DYNAMIC)
        return tuple(shapes_of(item) for item in value)

    shapes = {argument: shapes_of(value) for argument, value in bound.arguments.items()}
    try:
        with quiet(), torch.no_grad():
            # Not strict: the model's Python runs as it is; TorchDynamo would have to read it first.
            return torch.export.export(model, tensors, dynamic_shapes=shapes, strict=False)
    except (RuntimeError, ValueError, TypeError) as error:  # TorchDynamo's are RuntimeErrors
        raise ValueError(
            f"export_onnx: expected a model that torch.export can trace, got {_reason(error)}"
        ) from error


def translate(
    program: Any,
    *,
    options: ExportOptions,
    input_names: Sequence[str],
    output_names: Sequence[str],
    translations: Mapping[Any, Callable[..., Any]],
) -> Any:
    """Write a traced program in ONNX's operators, not yet simplified.

    Args:
        program: what :func:`trace` returned.
        options: say how DCNv3 is written.
        input_names: one an input.
        output_names: one an output.
        translations: of further operators.

    Returns:
        An ``onnx_ir.Model`` of opset :data:`TRACED_OPSET`.

    Raises:
        ValueError: an operator has no translation.
    """
    # Not in the except clause: that would import anew what a stop has left half imported.
    from torch.onnx.errors import OnnxExporterError

    table = {**build_translations(options.operator), **translations}
    try:
        with quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program,
                (),  # the program has its inputs
                dynamo=True,
                opset_version=TRACED_OPSET,
                custom_translation_table=table,
                input_names=list(input_names),
                output_names=list(output_names),
                verbose=False,  # its progress is printed, which quiet() does not reach
                optimize=False,  # simplify() does it, with limits of its own
            )
    except OnnxExporterError as error:
        raise ValueError(
            f"export_onnx: expected operators that ONNX can express, got {_reason(error)}"
        ) from error
    if exported is None:
        raise RuntimeError("translate: torch.onnx.export returned no program")
    return exported.model


def _reason(error: BaseException) -> str:
    """The last cause of an error: its kind and first lines, in one."""
    # The exporter wraps what went wrong in pages about its own steps.
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
