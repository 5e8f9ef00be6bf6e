"""The plugin as TensorRT calls it: fields, shapes, formats, copies, and the kernels on the host.

Needs TensorRT's headers (``TENSORRT_DIR``) and CUDA's; no GPU.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.tensorrt.node_cases import NODES, Node, assert_as_expected
from tests.tensorrt.plugin_builds import compile_plugin_for_host
from tests.tensorrt.plugin_probe import CHW4, FLOAT, HALF, HWC, INT32, LINEAR, Plugin, Probe

SEPARATE, PACKED, ORIGINAL = "DCNv3", "DCNv3Packed", "TRTDCNv3"
# What the original's exporter writes for a stage of InternImage-T, and without remove_center too.
ORIGINAL_NODE = {
    **{f"{name}_{axis}": 3 if name == "kernel" else 1
       for name in ("kernel", "stride", "pad", "dilation") for axis in "hw"},
    "group": 4, "group_channels": 16, "offset_scale": 1.0, "im2col_step": 256, "remove_center": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(compile_plugin_for_host(tmp_path_factory.mktemp("plugin")))


@pytest.fixture
def probe(library: Probe) -> Probe:
    library.log_to(1)
    return library


def plugin_of(probe: Probe, node: Node) -> Plugin:
    plugin = probe.create(PACKED if node.packed else SEPARATE, **node.attributes)
    assert plugin is not None, probe.logged
    return plugin


def test_the_creators_ask_for_the_operators_attributes_and_the_originals_for_its_two(probe: Probe):
    for name in (SEPARATE, PACKED):
        assert sorted(probe.field_names(name)) == sorted(Node().attributes)
    assert set(probe.field_names(ORIGINAL)) == {*ORIGINAL_NODE, "softmax"}


@pytest.mark.parametrize("name", NODES)
def test_a_plugin_computes_what_the_operator_defines(probe: Probe, name: str):
    node = NODES[name]
    inputs, output = node.inputs(), np.full(node.output_size, np.nan, node.dtype)
    assert plugin_of(probe, node).run(inputs, output) == 0, probe.logged
    assert_as_expected(output, node, inputs)


def test_copies_for_networks_contexts_and_plans_keep_every_attribute(probe: Probe):
    node = NODES["uneven everything"]
    inputs = node.inputs()
    plugin = plugin_of(probe, node)
    assert plugin.serialized() == node.attributes
    for copy in plugin.copies().values():
        assert copy.has_all_capabilities()
        assert copy.serialized() == node.attributes
        output = np.full(node.output_size, np.nan, node.dtype)
        assert copy.run(inputs, output) == 0
        assert_as_expected(output, node, inputs)


def test_a_node_of_the_originals_exporter_is_read_whole(probe: Probe):
    plugin = probe.create(ORIGINAL, **ORIGINAL_NODE)
    assert plugin is not None, probe.logged
    assert plugin.serialized() == ORIGINAL_NODE | {"softmax": 0}
    assert plugin.output_shape((1, 56, 56, 64), (1, 56, 56, 72), (1, 56, 56, 36)) == (1, 56, 56, 64)
    node = Node(channels=64, group=4, height=5, width=5)
    inputs, output = node.inputs(), np.full(node.output_size, np.nan, node.dtype)
    assert plugin.run(inputs, output) == 0
    assert_as_expected(output, node, inputs)
    without = {name: value for name, value in ORIGINAL_NODE.items() if name != "remove_center"}
    assert probe.create(ORIGINAL, **without) is not None


def test_channels_that_are_not_the_originals_groups_are_refused(probe: Probe):
    plugin = probe.create(ORIGINAL, **ORIGINAL_NODE)
    assert plugin is not None
    assert plugin.output_shape((1, 8, 8, 128), (1, 8, 8, 72), (1, 8, 8, 36)) is None
    words = "TRTDCNv3: expected group x group_channels = 4 x 16 channels, got 128"
    assert words in probe.logged
    # Where the network does not know them, the run does.
    assert plugin.output_shape((1, 8, 8, -129), (1, 8, 8, 72), (1, 8, 8, 36)) == (1, 8, 8, 128)
    probe.log_to(1)
    node = Node(channels=128, group=4)
    assert plugin.run(node.inputs(), np.full(node.output_size, 7.0, node.dtype)) == -1
    assert words in probe.logged


@pytest.mark.parametrize("name", NODES)
def test_the_output_has_the_operators_size(probe: Probe, name: str):
    node = NODES[name]
    plugin = plugin_of(probe, node)
    shapes = [array.shape for array in node.inputs()]
    assert plugin.output_shape(*shapes) == node.output_size


def test_sizes_known_only_at_run_time_give_the_same_output(probe: Probe):
    node = NODES["stride 2"]
    shapes = [tuple(-1 - size for size in array.shape[:3]) for array in node.inputs()]
    channels = [array.shape[3] for array in node.inputs()]
    dynamic = [(*shape, count) for shape, count in zip(shapes, channels, strict=True)]
    assert plugin_of(probe, node).output_shape(*dynamic) == node.output_size
    everything = [(*shape, -1 - count) for shape, count in zip(shapes, channels, strict=True)]
    assert plugin_of(probe, node).output_shape(*everything) == node.output_size


@pytest.mark.parametrize(
    ("shapes", "ranks", "words"),
    [
        ([(1, 8, 8, 32)], None, "expected 3 inputs and 1 output, got 1 and 1"),
        ([(1, 8, 8, 32)] * 2, None, "expected 3 inputs and 1 output, got 2 and 1"),
        ([(1, 8, 8, 33), (1, 8, 8, 36), (1, 8, 8, 18)], None, "that group = 2 divides, got 33"),
        ([(1, 8, 8, 32)] * 3, [4, 3, 4], "expected inputs of 4 dimensions"),
    ],
)
def test_shapes_that_do_not_fit_a_network_are_refused(
    probe: Probe, shapes: list[tuple[int, ...]], ranks: list[int] | None, words: str
):
    assert plugin_of(probe, Node()).output_shape(*shapes, ranks=ranks) is None
    assert words in probe.logged


def test_float32_half_and_half_beside_float32_points_are_supported(probe: Probe):
    plugin = plugin_of(probe, Node())
    assert plugin.supports([FLOAT] * 4)
    assert plugin.supports([HALF] * 4)
    assert plugin.supports([HALF, FLOAT, FLOAT, HALF])
    refused = (
        [FLOAT, HALF, HALF, FLOAT],
        [HALF, HALF, FLOAT, HALF],
        [HALF, HALF, HALF, FLOAT],
        [FLOAT, FLOAT, FLOAT, HALF],
        [INT32] * 4,
        [FLOAT, INT32, INT32, FLOAT],
    )
    for types in refused:
        assert not plugin.supports(types), types
    packed = plugin_of(probe, NODES["packed"])
    assert packed.supports([HALF, FLOAT, HALF])
    assert packed.supports([HALF, HALF, HALF])
    assert not packed.supports([HALF, FLOAT, FLOAT])


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("other", [CHW4, HWC])
def test_only_the_order_of_the_onnx_node_is_supported(probe: Probe, position: int, other: int):
    formats = [LINEAR] * 4
    formats[position] = other
    assert not plugin_of(probe, Node()).supports([HALF] * 4, formats)


def test_the_output_has_the_type_of_the_input(probe: Probe):
    plugin = plugin_of(probe, Node())
    assert plugin.output_type(FLOAT, FLOAT, FLOAT) == FLOAT
    assert plugin.output_type(HALF, FLOAT, FLOAT) == HALF
    assert plugin.output_type(HALF, FLOAT) == -1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "expected a field group, got none"),
        ({"group": 0}, "expected group from 1 to 1073741824, got 0"),
        ({"group": 4, "stride_h": 0}, "expected stride_h from 1"),
        ({"group": 4, "pad_w": -1}, "expected pad_w from 0"),
        ({"group": 4, "softmax": 2}, "expected softmax from 0 to 1, got 2"),
        ({"group": np.int64(2**40)}, "expected group from 1 to 1073741824, got 1099511627776"),
        ({"group": 4.0}, "expected group = one integer"),
        ({"group": 4, "offset_scale": 1}, "expected offset_scale = one float"),
        ({"group": 4, "offset_scale": float("nan")}, "expected a finite offset_scale"),
        ({"group": 4, "kernel_h": 4, "remove_center": 1}, "expected an odd kernel"),
        ({"group": 4, "kernel_h": 1, "kernel_w": 1, "remove_center": 1}, "1 x 1 kernel"),
    ],
)
def test_a_node_with_a_wrong_attribute_makes_no_plugin(
    probe: Probe, fields: dict[str, object], words: str
):
    assert probe.create(PACKED, **fields) is None
    assert probe.logged.startswith(f"{PACKED}: ")
    assert words in probe.logged


def test_fields_of_other_widths_and_of_other_plugins_are_read_and_left_alone(probe: Probe):
    plugin = probe.create(
        SEPARATE, group=np.int64(4), offset_scale=np.float64(2.0), plugin_version=7
    )
    assert plugin is not None
    assert plugin.serialized() == Node().attributes | {"group": 4, "offset_scale": 2.0}


def test_tensors_that_do_not_fit_a_run_are_refused_and_nothing_is_written(probe: Probe):
    node = Node()
    image, offset, mask = node.inputs()
    output = np.full(node.output_size, 7.0, node.dtype)
    plugin = plugin_of(probe, node)
    wrong = {
        "as many images and pixels as the output": (image, offset[:, :-1], mask[:, :-1]),
        "expected 36 numbers a pixel of offsets, got 35": (image, offset[..., :-1], mask),
        "expected 18 numbers a pixel of weights, got 17": (image, offset, mask[..., :-1]),
        "expected an output of 6 x 6 pixels, got 7 x 6": (image[:, :-1], offset, mask),
    }
    for words, inputs in wrong.items():
        probe.log_to(1)
        assert plugin.run([np.ascontiguousarray(array) for array in inputs], output) == -1
        assert words in probe.logged
    assert plugin.run((image, offset, mask), output, stream=1) == -2
    assert "the CUDA kernel cannot be started" in probe.logged
    assert (output == 7.0).all()


@pytest.mark.parametrize("kind", [0, 2])
def test_without_a_logger_errors_go_to_standard_error(
    probe: Probe, kind: int, capfd: pytest.CaptureFixture[str]
):
    probe.log_to(kind)
    assert probe.create(PACKED) is None
    assert capfd.readouterr().err == "DCNv3Packed: expected a field group, got none\n"
