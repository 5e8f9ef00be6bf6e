"""From a model in PyTorch to an ONNX file that is known to be right."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import internimage
from internimage.export.compare import Compare, difference, open_session
from internimage.export.graph import convert, is_half, name_axes, simplify, strip
from internimage.export.lint import all_nodes, lint
from internimage.export.metadata import ModelMetadata
from internimage.export.options import IR_VERSIONS, ExportOptions
from internimage.export.packages import require_packages
from internimage.export.placing import FAILED, external_files, place, save, staging_folder
from internimage.export.report import Check, ExportReport
from internimage.export.tracing import OpenAxes, open_axes, trace, translate
from internimage.runtime.format import KEY


def export_onnx(
    model: nn.Module,
    example: Mapping[str, Tensor],
    path: Path,
    *,
    output_names: Sequence[str],
    dynamic_axes: OpenAxes,
    options: ExportOptions,
    metadata: ModelMetadata,
    checks: Sequence[Mapping[str, Tensor]] = (),
    tolerance: float,
    compare: Compare | None = None,
    reference: nn.Module | None = None,
    translations: Mapping[Any, Callable[..., Any]] | None = None,
    keep: bool = False,
) -> ExportReport:
    """Write a model as ONNX: trace, translate, lint, run, compare, and only then name the file.

    Args:
        model: in evaluation mode; takes the tensors of ``example`` by position and returns a tensor
            or a sequence of them. For ``options.precision = "fp16"`` a model that is half inside,
            see :func:`internimage.export.half.to_half`.
        example: the inputs of the traced call by their names in the file, in the order of
            ``model``'s arguments; the first is the image (N, C, H, W).
        path: the file. It appears when all is well, and is as it was before otherwise.
        output_names: of the file, in the order in which ``model`` returns them.
        dynamic_axes: for each input the axes that may be left open and what they are called; those
            whose name is not in ``options.opened`` are fixed to the size in ``example``.
        options: what the file is to be.
        metadata: what travels inside it.
        checks: further inputs to compare with, of other sizes where axes are open.
        tolerance: the largest difference allowed.
        compare: turns the outputs of PyTorch and of ONNX Runtime into one difference. None is the
            largest difference of all, over the largest value of PyTorch's output.
        reference: what to compare with, float32; None is ``model``.
        translations: of operators that PyTorch's exporter does not know, for its
            ``custom_translation_table``.
        keep: keep a file that differs too much as ``PATH.failed``.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        OSError: the file cannot be written.
        ValueError: the model cannot be exported so, or differs by more than ``tolerance``.
    """
    require_packages("export_onnx")  # first: a trace takes minutes
    path = Path(path)
    started = time.monotonic()
    if model.training or (reference is not None and reference.training):
        raise ValueError("export_onnx: expected a model in evaluation mode, got one in training")
    axes = open_axes(dynamic_axes, options)
    with staging_folder(path) as folder:
        staged = folder / path.name
        graph = _build(
            model,
            example,
            axes,
            output_names=output_names,
            options=options,
            translations=translations or {},
        )
        # The metadata would say fp16 of it, and TensorRT build a float32 engine without a word.
        if options.precision == "fp16" and not is_half(graph):
            raise ValueError(
                "export_onnx: expected a model with weights in half precision (to_half makes one) "
                "for precision fp16, got none"
            )
        # Behind _build(), whose strip() empties the properties.
        graph.metadata_props[KEY] = metadata.to_json(**_facts(example, axes, options))
        save(graph, staged)
        del graph  # its weights are in the file now, and are about to be in ONNX Runtime
        # Before it runs: what lint() refuses may run here, and be wrong elsewhere.
        proto = lint(staged)
        done = (
            []
            if _runs_nowhere(options, path)
            else _compare_all(
                reference or model, staged, [example, *checks], compare=compare, options=options
            )
        )
        report = ExportReport(
            path=path,
            nodes=Counter(node.op_type for node in all_nodes(proto.graph)),
            size=sum(
                staged.with_name(n).stat().st_size for n in [path.name, *external_files(staged)]
            ),
            checks=done,
            tolerance=tolerance,
            seconds=time.monotonic() - started,
            summary=_summary(metadata, example, axes, options),
        )
        # Not `>`, which NaN would pass.
        too_far = [check.found for check in done if not check.difference <= tolerance]
        if too_far:
            kept = ""
            if keep:
                failed = path.with_name(f"{path.name}{FAILED}")
                place(staged, failed)
                kept = f"; the file is kept as {failed}"
            raise ValueError(
                f"export_onnx: expected a difference to PyTorch <= {tolerance:g}, got "
                f"{too_far[0]} for {path.name}{kept}"
            )
        place(staged, path)
    return report


def _build(
    model: nn.Module,
    example: Mapping[str, Tensor],
    axes: OpenAxes,
    *,
    output_names: Sequence[str],
    options: ExportOptions,
    translations: Mapping[Any, Callable[..., Any]],
) -> Any:
    """Return the finished graph, an ``onnx_ir.Model``."""
    graph = translate(
        trace(model, example, axes),
        options=options,
        input_names=list(example),
        output_names=output_names,
        translations=translations,
    )
    simplify(graph)  # first: what it drops need not be converted
    convert(graph, options.opset)
    name_axes(graph, axes)
    strip(graph)
    graph.ir_version = IR_VERSIONS[options.opset]
    graph.producer_name = "internimage"
    graph.producer_version = internimage.__version__
    return graph


def _facts(example: Mapping[str, Tensor], axes: OpenAxes, options: ExportOptions) -> dict[str, Any]:
    """What the export itself knows of a file, for its metadata."""
    name, image = next(iter(example.items()))
    opened = axes.get(name, {})
    sizes = [None if axis in opened else size for axis, size in enumerate(image.shape)]
    return {
        "version": internimage.__version__,
        "precision": options.precision,
        "operator": options.operator,
        "input_size": sizes[2:],
        "batch": sizes[0],
    }


def _summary(
    metadata: ModelMetadata, example: Mapping[str, Tensor], axes: OpenAxes, options: ExportOptions
) -> str:
    shapes = []
    for name, tensor in example.items():
        opened = axes.get(name, {})
        sizes = (opened.get(axis, str(size)) for axis, size in enumerate(tensor.shape))
        shapes.append(f"{name} ({', '.join(sizes)})")
    return (
        f"{metadata.model}, {metadata.task}, {options.precision}, opset {options.opset}, DCNv3 as "
        f"{options.operator}, {', '.join(shapes)}"
    )


def _runs_nowhere(options: ExportOptions, path: Path) -> bool:
    """Whether nothing here runs the node of our own; warns of it."""
    if options.operator != "node":
        return False
    from ops_dcnv3.onnxruntime import library_path

    try:
        library_path()
    except ImportError as error:
        warnings.warn(
            f"{path} has not been run and compared with PyTorch, which takes the operator's "
            f"library for ONNX Runtime: {error}",
            stacklevel=3,
        )
        return True
    return False


def _compare_all(
    reference: nn.Module,
    staged: Path,
    inputs: Sequence[Mapping[str, Tensor]],
    *,
    compare: Compare | None,
    options: ExportOptions,
) -> list[Check]:
    session = open_session(staged, with_own_node=options.operator == "node")
    return [
        Check(
            shapes=", ".join("x".join(map(str, tensor.shape)) for tensor in tensors.values()),
            found=difference(reference, session, tensors, compare),
        )
        for tensors in inputs
    ]
