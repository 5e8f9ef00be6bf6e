"""The DCNv3 layer against a composition of its formula, its keys and its start values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import ops_dcnv3
from ops_dcnv3 import modules

SETTINGS = [
    {},
    {"channels": 32, "group": 2, "center_feature_scale": True, "dw_kernel_size": 5},
    {"channels": 24, "group": 3, "remove_center": True, "offset_scale": 2.0},
    {"channels": 16, "group": 2, "kernel_size": 5, "pad": 2, "norm_layer": "BN"},
    {"channels": 16, "group": 4, "dilation": 2, "pad": 2, "act_layer": "ReLU"},
    {"channels": 16, "group": 1, "kernel_size": 1, "pad": 0, "act_layer": "SiLU"},
]


def randomise(module: nn.Module) -> None:
    """Give every parameter and statistic a value: fresh ones are zero and would hide errors."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                lowest = 0.5 if name.endswith("running_var") else -0.3
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + lowest)


def composition(module: nn.Module, x: Tensor, **given) -> Tensor:
    """The layer's formula on its state dict: x (N, H, W, C) -> (N, H, W, C)."""
    s = module.state_dict()
    groups, kernel = given.get("group", 4), given.get("kernel_size", 3)
    size = given.get("dw_kernel_size") or kernel
    control = F.conv2d(
        x.permute(0, 3, 1, 2),
        s["dw_conv.0.weight"],
        s["dw_conv.0.bias"],
        padding=(size - 1) // 2,
        groups=x.shape[-1],
    )
    if given.get("norm_layer") == "BN":
        mean, variance = s["dw_conv.1.0.running_mean"], s["dw_conv.1.0.running_var"]
        weight, bias = s["dw_conv.1.0.weight"], s["dw_conv.1.0.bias"]
        control = F.batch_norm(control, mean, variance, weight, bias)
        control = control.permute(0, 2, 3, 1)
    else:
        weight, bias = s["dw_conv.1.1.weight"], s["dw_conv.1.1.bias"]
        control = F.layer_norm(control.permute(0, 2, 3, 1), x.shape[-1:], weight, bias, eps=1e-6)
    control = {"GELU": F.gelu, "ReLU": F.relu, "SiLU": F.silu}[given.get("act_layer", "GELU")](
        control
    )
    value = F.linear(x, s["input_proj.weight"], s["input_proj.bias"])
    logits = F.linear(control, s["mask.weight"], s["mask.bias"])
    output = ops_dcnv3.dcnv3_reference(
        value,
        F.linear(control, s["offset.weight"], s["offset.bias"]),
        logits.unflatten(-1, (groups, -1)).softmax(-1).flatten(-2),
        kernel_size=kernel,
        padding=given.get("pad", 1),
        dilation=given.get("dilation", 1),
        groups=groups,
        offset_scale=given.get("offset_scale", 1.0),
        remove_center=given.get("remove_center", False),
    )
    if given.get("center_feature_scale"):
        weight, bias = (s[f"center_feature_scale_proj_{part}"] for part in ("weight", "bias"))
        gate = F.linear(control, weight, bias).sigmoid()
        gate = gate.repeat_interleave(x.shape[-1] // groups, -1)
        output = output * (1 - gate) + value * gate
    return F.linear(output, s["output_proj.weight"], s["output_proj.bias"])


@pytest.fixture(params=[modules.DCNv3, modules.DCNv3_pytorch], ids=lambda c: c.__name__)
def layer(request) -> type[nn.Module]:
    """The layer, and its twin on the reference."""
    return request.param


def build(layer: type[nn.Module], given: dict) -> nn.Module:
    """A layer in float64 with random parameters, in evaluation mode."""
    module = layer(**given).double().eval()
    randomise(module)
    return module


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_the_layer_equals_its_formula(layer, given):
    module = build(layer, given)
    x = torch.randn(2, 7, 6, given.get("channels", 64), dtype=torch.float64)
    output = module(x)
    assert output.std() > 0.01
    torch.testing.assert_close(output, composition(module, x, **given), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_both_layers_have_the_same_gradients(given):
    x = torch.randn(2, 7, 6, given.get("channels", 64), dtype=torch.float64)
    gradients = []
    for layer in (modules.DCNv3, modules.DCNv3_pytorch):
        module, leaf = build(layer, given), x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        gradients.append([leaf.grad, *(p.grad for p in module.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


class PackedWidths(TorchDispatchMode):
    """Notes the last dimension of every packed tensor of offsets and logits, and all operators."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[int] = []
        self.operators: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operators.append(func.name())
        if func is torch.ops.ops_dcnv3.dcnv3_packed.default:
            self.widths.append(args[1].shape[-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "device, remove_center, width",
    [("cpu", False, 54), ("cuda", False, 56), ("cpu", True, 48), ("cuda", True, 48)],
)
def test_a_gpu_gets_offsets_and_logits_of_a_multiple_of_8_features(device, remove_center, width):
    with FakeTensorMode(), torch.device(device), PackedWidths() as noted:
        module = modules.DCNv3(channels=16, group=2, remove_center=remove_center)
        output = module(torch.empty(1, 5, 6, 16))
    assert output.device.type == device
    assert noted.widths == [width]


@pytest.mark.parametrize("given", SETTINGS, ids=str)
@pytest.mark.parametrize("rows", [1, 7])
def test_padding_of_offsets_and_logits_changes_nothing(monkeypatch, given, rows):
    module = build(modules.DCNv3, given)
    x = torch.randn(2, 7, 6, given.get("channels", 64), dtype=torch.float64)
    results = []
    for padding in (0, rows):
        monkeypatch.setattr(modules, "_padding_rows", lambda *_, padding=padding: padding)
        leaf = x.clone().requires_grad_()
        module.zero_grad()
        with PackedWidths() as noted:
            output = module(leaf)
        output.square().sum().backward()
        results.append([output, leaf.grad, *(p.grad for p in module.parameters())])
        points = module.geometry.groups * module.geometry.num_points
        assert noted.widths == [3 * points + padding]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("group, kernel_size", [(4, 3), (1, 1)])
def test_padding_runs_no_kernel_of_its_own(monkeypatch, group, kernel_size):
    """Views alone are added, even where the rows to add are more than there are."""
    given = {"channels": 16, "group": group, "kernel_size": kernel_size, "pad": kernel_size // 2}
    module, operators = build(modules.DCNv3, given), []
    for rows in (0, 7):
        monkeypatch.setattr(modules, "_padding_rows", lambda *_, rows=rows: rows)
        with PackedWidths() as noted:
            module(torch.randn(1, 5, 6, 16, dtype=torch.float64))
        operators.append(noted.operators)
    views = ("aten::slice.Tensor", "aten::detach", "aten::expand")
    assert [name for name in operators[1] if name not in views] == [
        name for name in operators[0] if name not in views
    ]


@pytest.mark.parametrize("dynamic, copies", [(False, False), (True, True)])
def test_only_a_compiler_that_does_not_know_the_size_is_given_a_copy(dynamic, copies):
    torch.compiler.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    module = modules.DCNv3(channels=16, group=2)
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend=backend)
    with torch.no_grad():
        x = torch.randn(2, 5, 6, 16)
        torch.testing.assert_close(compiled(x), module(x))
    (graph,) = graphs
    called = {node.target for node in graph.graph.nodes if node.op == "call_method"}
    assert ("contiguous" in called) is copies


def test_the_keys_and_shapes_are_those_of_the_released_checkpoints(layer):
    module = layer(channels=32, group=2, dw_kernel_size=5, center_feature_scale=True)
    assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == {
        "dw_conv.0.weight": (32, 1, 5, 5),
        "dw_conv.0.bias": (32,),
        "dw_conv.1.1.weight": (32,),
        "dw_conv.1.1.bias": (32,),
        "offset.weight": (36, 32),
        "offset.bias": (36,),
        "mask.weight": (18, 32),
        "mask.bias": (18,),
        "input_proj.weight": (32, 32),
        "input_proj.bias": (32,),
        "output_proj.weight": (32, 32),
        "output_proj.bias": (32,),
        "center_feature_scale_proj_weight": (2, 32),
        "center_feature_scale_proj_bias": (2,),
    }


def test_a_layer_without_a_center_has_one_point_less(layer):
    module = layer(channels=32, group=2, remove_center=True)
    assert module.offset.weight.shape == (2 * 8 * 2, 32)
    assert module.mask.weight.shape == (2 * 8, 32)
    assert not hasattr(module, "center_feature_scale_proj_weight")


def test_a_fresh_layer_is_a_box_filter_of_the_projected_input(layer):
    module = layer(channels=16, group=4).double()
    for part in (module.offset, module.mask):
        assert not part.weight.any() and not part.bias.any()
    for part in (module.input_proj, module.output_proj):
        assert part.weight.any() and not part.bias.any()
    x = torch.randn(2, 6, 5, 16, dtype=torch.float64)
    value = F.linear(x, module.input_proj.weight).permute(0, 3, 1, 2)
    mean = F.avg_pool2d(value, 3, stride=1, padding=1).permute(0, 2, 3, 1)
    expected = F.linear(mean, module.output_proj.weight)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


def test_reset_parameters_returns_to_the_fresh_start(layer):
    module = layer(channels=16, group=4, center_feature_scale=True)
    randomise(module)
    module.reset_parameters()
    for name in ("offset", "mask"):
        assert not getattr(module, name).weight.any()
    assert not module.center_feature_scale_proj_weight.any()


def test_batch_zero_goes_through_the_layer(layer):
    assert layer(channels=16, group=4)(torch.randn(0, 6, 5, 16)).shape == (0, 6, 5, 16)


def test_the_layer_takes_a_permuted_input(layer):
    module = build(layer, {"channels": 16})
    x = torch.randn(2, 16, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(
        module(x.permute(0, 2, 3, 1)),
        module(x.permute(0, 2, 3, 1).contiguous()),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    "given, named",
    [
        ({"channels": 30, "group": 4}, "channels"),
        ({"act_layer": "Tanhh"}, "act_layer"),
        ({"norm_layer": "GN"}, "norm_layer"),
        ({"dw_kernel_size": 4}, "dw_kernel_size"),
        ({"stride": 2}, "stride"),
        ({"pad": 0}, "pad"),
        ({"kernel_size": 2, "remove_center": True}, "kernel_size"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_named(layer, given, named):
    with pytest.raises(ValueError, match=rf"^DCNv3: expected .*{named}.*, got "):
        layer(**given)
