from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import internimage

SIZES = ["internimage_test_t", "internimage_test_s", "internimage_test_h", "internimage_test_g"]
TINY = {"channels": 16, "depths": (1, 1, 2, 1), "groups": (1, 2, 4, 8), "num_classes": 5}


def tiny(**arguments) -> internimage.InternImage:
    if arguments.get("features_only"):
        arguments = {"num_classes": 0} | arguments
    return internimage.InternImage(**(TINY | {"drop_path_rate": 0.0} | arguments))


def ceil_half(size: int, times: int) -> int:
    for _ in range(times):
        size = -(-size // 2)
    return size


@pytest.mark.parametrize("name", SIZES)
def test_every_parameter_gets_a_finite_gradient(name, fill, image):
    model = fill(internimage.create_model(name, num_classes=7)).train()
    model(image(2, 64, 32, 0).float()).square().sum().backward()
    lacking = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert lacking == []


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (40, 7), (64, 64)])
def test_any_size_is_allowed_and_halvings_round_up(size, image):
    model = tiny(features_only=True).eval()
    maps = model(image(1, *size, 0).float())
    expected = [
        (1, 16 * 2**i, ceil_half(size[0], i + 2), ceil_half(size[1], i + 2)) for i in range(4)
    ]
    assert [tuple(y.shape) for y in maps] == expected
    assert all(y.is_contiguous() for y in maps)
    assert tiny().eval()(image(1, *size, 0).float()).shape == (1, 5)


@pytest.mark.parametrize("name", SIZES)
def test_features_intermediates_and_logits_agree(name, filled_model, image):
    model = filled_model(name)
    x = image(2, 64, 96, 1).float()
    with torch.no_grad():
        dense = internimage.create_model(name, features_only=True, out_indices=(1, 3)).eval()
        internimage.checkpoint.load_weights(dense, model.state_dict())
        final, maps = model.forward_intermediates(x)
        torch.testing.assert_close(dense(x), [maps[1], maps[3]], rtol=0, atol=0)
        last_two = model.forward_intermediates(x, 2, intermediates_only=True)
        torch.testing.assert_close(last_two, maps[2:], rtol=0, atol=0)
        channels_last = model.forward_intermediates(
            x, [0], intermediates_only=True, output_fmt="NHWC"
        )
        torch.testing.assert_close(channels_last[0].permute(0, 3, 1, 2), maps[0], rtol=0, atol=0)
        torch.testing.assert_close(model.forward_features(x), final, rtol=0, atol=0)
        torch.testing.assert_close(model.forward_head(final), model(x), rtol=0, atol=0)
    info = model.feature_info
    assert [entry["num_chs"] for entry in info] == [y.shape[1] for y in maps]
    assert model.num_features == maps[-1].shape[1]
    assert [x.shape[2] // entry["reduction"] for entry in info] == [y.shape[2] for y in maps]


def test_stages_behind_the_last_wanted_one_do_not_run(image):
    model = tiny(features_only=True, out_indices=(0, 1)).eval()
    for stage in model.levels[2:]:
        stage.register_forward_hook(lambda *_: pytest.fail("the stage ran"))
    assert len(model(image(1, 32, 32, 0).float())) == 2


def test_batch_of_none_gives_logits_of_none(image):
    assert tiny().eval()(image(0, 32, 32, 0).float()).shape == (0, 5)


# The wrong images, and what the error must say.
WRONG_INPUT = [
    (torch.zeros(3, 32, 32), r"\(3, 32, 32\)"),
    (torch.zeros(1, 4, 32, 32), r"\(1, 4, 32, 32\)"),
    (torch.zeros(1, 32, 32, 3), r"\(N, 3, H, W\)"),
    (torch.zeros(1, 3, 0, 32), r"H and W >= 1, got \(1, 3, 0, 32\)"),
    (torch.zeros(1, 3, 32, 0), r"H and W >= 1, got \(1, 3, 32, 0\)"),
    (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8"),
    (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "float64"),
]


@pytest.mark.parametrize(("x", "message"), WRONG_INPUT)
def test_wrong_input_is_a_value_error(x, message):
    with pytest.raises(ValueError, match=rf"InternImage.forward: expected .*{message}"):
        tiny()(x)


def test_another_dtype_on_the_meta_device_is_a_value_error():
    x = torch.zeros(1, 3, 32, 32, device="meta", dtype=torch.float16)
    with pytest.raises(ValueError, match="expected x of dtype torch.float32"):
        tiny().to("meta")(x)


@pytest.mark.parametrize("size", [(32, 33), (16, 64), (56, 56)])
def test_the_clip_head_asks_for_multiples_of_32(size, filled_model):
    with pytest.raises(ValueError, match=f"multiples of 32 .* got {size[0]} x {size[1]}"):
        filled_model("internimage_test_h")(torch.zeros(1, 3, *size))


def test_a_clip_sized_backbone_without_head_takes_any_size(image):
    model = internimage.create_model("internimage_test_h", features_only=True).eval()
    assert model(image(1, 33, 50, 0).float())[3].shape == (1, 128, 2, 2)


# Arguments that must be refused, and the name that the error must have.
WRONG_ARGUMENTS = [
    ({"channels": 15}, "channels"),
    ({"groups": (3, 2, 4, 8)}, r"groups\[0\]"),
    ({"depths": (1, 1, 2)}, "depths and groups"),
    ({"depths": (1, 0, 2, 1)}, "depths"),
    ({"num_classes": -1}, "num_classes"),
    ({"in_chans": 0}, "in_chans"),
    ({"core_op": "DCNv9"}, "core_op"),
    ({"mlp_ratio": 0}, "mlp_ratio >= 1 / 16"),
    ({"mlp_ratio": 0.01}, "mlp_ratio >= 1 / 16"),
    ({"cls_scale": 0}, "cls_scale >= 1 / 128"),
    ({"cls_scale": float("inf")}, "cls_scale = a finite number"),
    ({"layer_scale": float("nan")}, "layer_scale = a finite number"),
    ({"act_layer": ["GELU"]}, "act_layer"),
    ({"drop_rate": 1.5}, "drop_rate"),
    ({"drop_path_rate": -0.1}, "drop_path_rate"),
    ({"drop_path_type": "cosine"}, "drop_path_type"),
    ({"act_layer": "Tanh"}, "act_layer"),
    ({"norm_layer": "GN"}, "norm_layer"),
    ({"dw_kernel_size": 4}, "dw_kernel_size"),
    ({"level2_post_norm": True}, "level2_post_norm_block_ids"),
    ({"level2_post_norm": True, "level2_post_norm_block_ids": [2]}, "level2_post_norm_block_ids"),
    ({"level2_post_norm": True, "level2_post_norm_block_ids": [1, 1]}, "different indices"),
    ({"features_only": True, "out_indices": (-1,)}, r"indices\[0\] >= 0"),
    ({"frozen_stages": -2}, "frozen_stages >= -1"),
    ({"out_indices": (0, 1)}, "features_only"),
    ({"features_only": True, "out_indices": (3, 1)}, "ascending"),
    ({"features_only": True, "out_indices": (4,)}, r"0\.\.3"),
    ({"frozen_stages": 5}, "frozen_stages"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_ARGUMENTS)
def test_wrong_arguments_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


# Arguments of another kind, and what the error must say.
WRONG_KINDS = [
    ({"channels": "16"}, "channels = a whole number, got '16'"),
    ({"channels": 16.0}, "channels = a whole number, got 16.0"),
    ({"depths": (1.0, 1, 2, 1)}, r"depths\[0\] = a whole number, got 1.0"),
    ({"depths": 4}, "depths = whole numbers, got 4"),
    ({"depths": "1121"}, "depths = whole numbers, got '1121'"),
    ({"groups": (1, 2, 4, None)}, r"groups\[3\] = a whole number, got None"),
    ({"num_classes": None}, "num_classes = a whole number, got None"),
    ({"num_classes": True}, "num_classes = a whole number, got True"),
    ({"mlp_ratio": "4"}, "mlp_ratio = a number, got '4'"),
    ({"drop_rate": None}, "drop_rate = a number, got None"),
    ({"drop_path_rate": "0.1"}, "drop_path_rate = a number, got '0.1'"),
    ({"layer_scale": "1e-5"}, "layer_scale = a number, got '1e-5'"),
    ({"offset_scale": None}, "offset_scale = a number, got None"),
    ({"cls_scale": [1.5]}, r"cls_scale = a number, got \[1.5\]"),
    ({"dw_kernel_size": 3.0}, "dw_kernel_size = a whole number, got 3.0"),
    ({"post_norm": "False"}, "post_norm = True or False, got 'False'"),
    ({"with_cp": 1}, "with_cp = True or False, got 1"),
    (
        {"level2_post_norm": True, "level2_post_norm_block_ids": ["1"]},
        r"level2_post_norm_block_ids\[0\] = a whole number, got '1'",
    ),
    ({"features_only": True, "out_indices": (0, 1.5)}, r"indices\[1\] = a whole number, got 1.5"),
    ({"frozen_stages": 1.5}, "frozen_stages = a whole number, got 1.5"),
    ({"in_chans": "3"}, "in_chans = a whole number, got '3'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_KINDS)
def test_arguments_of_another_kind_are_type_errors(arguments, message):
    with pytest.raises(TypeError, match=f"^InternImage: expected {message}$"):
        tiny(**arguments)


def test_something_else_than_a_tensor_is_a_type_error():
    with pytest.raises(TypeError, match="InternImage.forward: expected x = a tensor, got ndarray"):
        tiny()(np.zeros((1, 3, 32, 32)))


def test_an_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError, match="post_nrom"):
        tiny(post_nrom=True)


# Arguments without effect beside another one.
WITHOUT_EFFECT = [
    ({"res_post_norm": True, "post_norm": True}, "res_post_norm has no effect beside post_norm"),
    ({"res_post_norm": True, "layer_scale": 1.0}, "res_post_norm has no effect beside layer_scale"),
    ({"level2_post_norm_block_ids": [0]}, "has no effect without level2_post_norm"),
    ({"use_clip_projector": True, "cls_scale": 2.0}, "cls_scale has no effect"),
    (
        {"features_only": True, "cls_scale": 2.0, "num_classes": 0},
        "cls_scale has no effect beside features_only",
    ),
    ({"features_only": True}, "num_classes has no effect beside features_only"),
]


@pytest.mark.parametrize(("arguments", "message"), WITHOUT_EFFECT)
def test_a_setting_without_effect_warns_at_the_caller(arguments, message):
    with pytest.warns(UserWarning, match=message) as warned:
        internimage.InternImage(**(TINY | arguments))
    assert [warning.filename for warning in warned] == [__file__]


# One change of every argument; keys, shapes or answer must differ from the plain model's.
CHANGES = [
    {"mlp_ratio": 2.0},
    {"act_layer": "ReLU"},
    {"act_layer": "SiLU"},
    {"norm_layer": "BN"},
    {"layer_scale": 0.5},
    {"offset_scale": 2.0},
    {"post_norm": True},
    {"cls_scale": 2.0},
    {"dw_kernel_size": 5},
    {"use_clip_projector": True},
    {"level2_post_norm": True, "level2_post_norm_block_ids": [1]},
    {"res_post_norm": True},
    {"center_feature_scale": True},
    {"remove_center": True},
    {"groups": (2, 4, 8, 16)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_every_argument_changes_the_model(change, fill, image):
    x = image(1, 64, 64, 2).float()
    plain, changed = fill(tiny()).eval(), fill(tiny(**change)).eval()
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (plain, changed)]
    with torch.no_grad():
        logits = changed(x)
        assert logits.isfinite().all()
        assert shapes[0] != shapes[1] or not torch.allclose(plain(x), logits)


def test_the_plain_pytorch_operator_gives_the_same_answer(fill, image):
    x = image(1, 40, 32, 3)
    models = [fill(tiny(core_op=op).double().eval()) for op in ("DCNv3", "DCNv3_pytorch")]
    with torch.no_grad():
        torch.testing.assert_close(models[0](x), models[1](x), rtol=0, atol=1e-9)


def test_a_model_starts_with_zero_offsets_and_small_linears():
    torch.manual_seed(0)
    for name in SIZES:
        for key, value in internimage.create_model(name).state_dict().items():
            if ".dcn.offset." in key or ".dcn.mask." in key or "center_feature_scale" in key:
                assert not value.any(), key
            elif key.endswith(("fc1.weight", "fc2.weight", "head.weight", "cross_dcn.q.weight")):
                assert 0.015 < value.std() < 0.025, key
            elif key.endswith("_proj.weight"):
                assert value.std() > 0.03, key  # Xavier, not the 0.02 of the other linears


def test_the_head_can_be_replaced_or_left_out(image):
    model = tiny().eval()
    x = image(2, 32, 32, 0).float()
    model.reset_classifier(9)
    assert model(x).shape == (2, 9)
    assert model.get_classifier().out_features == model.num_classes == 9
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    pre_logits = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(model(x), pre_logits)
    torch.testing.assert_close(tiny(num_classes=0).eval()(x).shape, pre_logits.shape)


@pytest.mark.parametrize("method", ["get_classifier", "reset_classifier", "forward_head"])
def test_a_model_without_head_says_so(method):
    arguments = {"reset_classifier": (3,), "forward_head": (torch.zeros(1, 128, 1, 1),)}
    with pytest.raises(ValueError, match=f"{method}: expected .*features_only = False"):
        getattr(tiny(features_only=True), method)(*arguments.get(method, ()))


@pytest.mark.parametrize("indices", [5, 0, [2, 1], [], [4]])
def test_wrong_stage_indices_are_value_errors(indices, image):
    with pytest.raises(ValueError, match="forward_intermediates: expected"):
        tiny().eval().forward_intermediates(image(1, 32, 32, 0).float(), indices)


def test_a_meta_model_has_shapes_and_no_storage():
    with torch.device("meta"):
        model = internimage.create_model("internimage_t")
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert all(parameter.is_meta for parameter in model.parameters())
