"""What is done to a graph between its translation and its file: simplify, share, name, tidy up.

Note [Transposes]
    Convolutions and GridSample want channels first, everything else of InternImage is channels last
    and stays so. What moves data in the graph of a classifier, all of it where two layouts meet:

    ==========================  ====================================================================
    2 a block                   into its depthwise convolution, and out of it
    4 a block                   DCNv3 around GridSample, see ``ops_dcnv3.onnx``; none as a node
    2 a downsampling            into its convolution, and out of it
    3 in the stem               out of the first convolution, into the second, out of that
    1 in the head               into its convolution
    ==========================  ====================================================================

    InternImage-T: 2*30 + 4*30 + 2*3 + 3 + 1 = 190, and 70 as a node. The input projection could run
    as a convolution on what the depthwise one takes, one transpose a block less: 1.5 % of the time
    in ONNX Runtime, and nothing where the value is wanted channels last too (InternImage-H and -G).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from internimage.export.quiet import quiet
from internimage.export.tracing import TRACED_OPSET, OpenAxes

_FOLD_LIMIT = 2**28
"""Numbers in a constant that is calculated beforehand; no weight of InternImage-G has as many."""


def simplify(model: Any) -> None:
    """Calculate what does not depend on the inputs, merge what is there twice, drop what is idle.

    Args:
        model: an ``onnx_ir.Model``, changed in place.
    """
    from onnxscript import optimizer

    with quiet(), _rules_of_one_node():
        _share_shapes(model)  # before the optimizer, which merges what has the same inputs alone
        # The usual limits would leave the joint weights of offsets and logits to every run: a
        # Concat and a Transpose in each block.
        optimizer.optimize(model, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT)


@contextmanager
def _rules_of_one_node() -> Iterator[None]:
    """Keep the rule of onnxscript's optimizer back that makes one Split of two slices.

    It compares each node with all others, 16 of the 18 seconds that all rules take for the smallest
    Mask2Former with open sizes, and finds nothing. It can come back when it looks at slices alone
    (onnxscript 0.7 does not).
    """
    from onnxscript import rewriter

    rules = getattr(rewriter, "_DEFAULT_REWRITE_RULES", None)
    if rules is None:  # another version: slower, and as right
        yield
        return
    rewriter._DEFAULT_REWRITE_RULES = tuple(rule for rule in rules if rule.name != "SlicesSplit")
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules


def convert(model: Any, opset: int) -> None:
    """Rewrite a graph in another version of ONNX's operators.

    Args:
        model: an ``onnx_ir.Model``, changed in place.
        opset: the version.

    Raises:
        ValueError: an operator cannot be rewritten.
    """
    if opset == TRACED_OPSET:
        return
    from onnxscript import version_converter

    if opset < TRACED_OPSET:
        for node in model.graph.all_nodes():
            field = node.attributes.get("noop_with_empty_axes")
            if field is not None and field.as_int() == 0:
                # The default, written out: it outlives the conversion to versions without it.
                del node.attributes["noop_with_empty_axes"]
        _slice_instead_of_split(model.graph)
    with quiet():
        version_converter.convert_version(model, opset, fallback=True)
    # Where the converter gives up, it logs a line, which quiet() drops, and leaves the graph alone.
    got = model.opset_imports.get("")
    if got != opset:
        raise ValueError(
            f"export_onnx: expected a graph that can be written in opset {opset}, got one that "
            f"needs opset {got}"
        )


def is_half(model: Any) -> bool:
    """Whether any weight of an ``onnx_ir.Model`` is float16."""
    import onnx_ir as ir

    return any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values())


def _slice_instead_of_split(graph: Any) -> None:
    """Cut tensors by Slice, since onnx knows no way from Split of opset 18 to an older one."""
    import onnx_ir as ir

    for node in [node for node in graph if node.op_type == "Split" and not node.domain]:
        axis = node.attributes.get_int("axis", 0)
        ends = [0]
        for part in node.outputs:
            size = None if part.shape is None else part.shape[axis]
            if not isinstance(size, int):
                break  # parts of open sizes stay, and convert() says that they cannot be written
            ends.append(ends[-1] + size)
        else:
            tape = ir.tape.Tape()
            for part, start, end in zip(node.outputs, ends, ends[1:], strict=False):
                limits = [tape.op("Constant", [], {"value_ints": [k]}) for k in (start, end, axis)]
                piece = tape.op("Slice", [node.inputs[0], *limits])
                piece.name, piece.shape, piece.type = f"{part.name}_slice", part.shape, part.type
                part.replace_all_uses_with(piece, replace_graph_outputs=True)
            graph.insert_before(node, tape.nodes)
            graph.remove(node, safe=True)


def name_axes(model: Any, axes: OpenAxes) -> None:
    """Call the open axes by their names, in inputs, outputs and all between.

    Args:
        model: an ``onnx_ir.Model``, changed in place.
        axes: the open axes of each input.
    """
    import onnx_ir as ir

    words: dict[str, str] = {}
    # torch.export calls an open size s77 or the like, and what follows from it by expressions of
    # that: the inputs say which word stands for which.
    for value in model.graph.inputs:
        for axis, word in axes.get(value.name, {}).items():
            words[str(value.shape[axis])] = word
    for value in model.graph.inputs:
        opened = axes.get(value.name, {})
        value.shape = ir.Shape([opened.get(axis, size) for axis, size in enumerate(value.shape)])
    inputs = set(model.graph.inputs)
    for value in _values(model):
        if value.shape is not None and value not in inputs:
            value.shape = ir.Shape([_rename(size, words) for size in value.shape])


def strip(model: Any) -> None:
    """Drop what the exporter notes of each node: the source code's paths and lines among it.

    Args:
        model: an ``onnx_ir.Model``, changed in place.
    """
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    for value in [*model.graph.inputs, *model.graph.initializers.values(), *_values(model)]:
        value.metadata_props.clear()
        value.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None


def _values(model: Any) -> Any:
    for node in model.graph.all_nodes():
        yield from node.outputs


def _rename(size: Any, words: Mapping[str, str]) -> Any:
    if isinstance(size, int) or size is None or size.value is None:
        return size
    text = str(size.value)  # as "s77", or an expression of it
    if text in words:
        return words[text]
    return re.sub(r"[A-Za-z_]\w*", lambda found: words.get(found[0], found[0]), text)


def _share_shapes(model: Any) -> None:
    """Ask one value for a size that many have, so that what follows from it is there once.

    Blocks of a stage each take the base grid of DCNv3 from the size of their own map. The exporter
    knows which of these sizes are the same expression of the input's.
    """
    askers: dict[tuple[Any, ...], Any] = {}
    for node in model.graph:
        if node.op_type != "Shape" or node.domain or node.inputs[0].shape is None:
            continue
        # Attributes since opset 15; without them Shape gives all of the sizes.
        start, end = (node.attributes.get(key) for key in ("start", "end"))
        first = 0 if start is None else start.as_int()
        last = len(node.inputs[0].shape) if end is None else end.as_int()
        sizes = tuple(str(size) for size in node.inputs[0].shape[first:last])
        if "None" in sizes:  # two that are not known need not be the same
            continue
        # Nodes stand in the order of their results: the first asker is there before all others. The
        # optimizer drops those that are idle now, and merges what becomes the same.
        shared = askers.setdefault(sizes, node.outputs[0])
        if shared is not node.outputs[0]:
            node.outputs[0].replace_all_uses_with(shared)
