"""Exported files with DCNv3 as a node, and the plugin that is to take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

import ops_dcnv3
from tests.exported_models import NUM_BLOCKS, Exported
from tests.tensorrt.plugin_builds import compile_plugin_for_host
from tests.tensorrt.plugin_probe import Probe


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(compile_plugin_for_host(tmp_path_factory.mktemp("plugin")))


def fields_of(node: onnx.NodeProto, names: list[str]) -> dict[str, Any]:
    """What TensorRT's parser hands to a creator: the attributes that it asks for, by name."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: attributes[name] for name in names if name in attributes}


@pytest.mark.slow
def test_every_node_of_an_exported_file_makes_a_plugin_that_computes_it(
    probe: Probe, exported: Exported
):
    probe.log_to(1)
    model = onnx.load(exported("classifier node"))
    nodes = [node for node in model.graph.node if node.domain == "dcnv3"]
    assert [node.op_type for node in nodes] == ["DCNv3Packed"] * NUM_BLOCKS
    random = np.random.default_rng(0)
    shapes = shapes_of(model)
    for node in nodes:
        fields = fields_of(node, probe.field_names(node.op_type))
        assert set(fields) == set(probe.field_names(node.op_type))
        plugin = probe.create(node.op_type, **fields)
        assert plugin is not None, probe.logged
        inputs = [random.standard_normal(shapes[name]).astype(np.float32) for name in node.input]
        shape = plugin.output_shape(*(array.shape for array in inputs))
        assert shape == shapes[node.output[0]]
        output = np.full(shape, np.nan, np.float32)
        assert plugin.run(inputs, output) == 0, probe.logged
        expected = operator(inputs, fields)
        assert np.abs(output - expected).max() <= 2e-6 * np.abs(expected).max()


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The size of every tensor that the file states."""
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in values
    }


def operator(inputs: list[np.ndarray], fields: dict[str, Any]) -> np.ndarray:
    """The operator itself on the packed tensor of a 3 x 3 node."""
    image, both = (torch.from_numpy(array) for array in inputs)
    points = 9 * fields["group"]
    return ops_dcnv3.dcnv3_reference(
        image.double(),
        both[..., : 2 * points].double(),
        both[..., 2 * points : 3 * points].double(),
        groups=fields["group"],
        offset_scale=fields["offset_scale"],
        softmax=bool(fields["softmax"]),
    ).numpy()
