"""CB-InternImage: the second stream is fed by the first, at any image size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

import internimage
from internimage.integrations.openmmlab.detection import CBInternImage


def build(**fields):
    torch.manual_seed(0)
    return MODELS.build(dict(type="CBInternImage", arch="test_h") | fields)


@pytest.fixture(scope="module")
def filled(fill):
    """A model whose gammas are not zero, in evaluation mode."""
    return fill(build().float()).float().eval()


def by_hand(model, images):
    """The maps of both streams, from their blocks; sizes are those that the maps really have."""
    first, second = model.cb_modules
    x = stem = first.patch_embed(images)
    maps = []
    for stage in first.levels:
        x = stage(x)
        maps.append(x.permute(0, 3, 1, 2))
        x = x if stage.downsample is None else stage.downsample(x)
    x, lead_maps = stem, []
    for i, stage in enumerate(second.levels):
        injected = maps[i]
        for j in range(i + 1, 4):
            found = model.cb_linears[i][j - i](maps[j])
            # nearest: the source of row y of H is y * h // H
            rows = torch.arange(maps[i].shape[2]) * found.shape[2] // maps[i].shape[2]
            columns = torch.arange(maps[i].shape[3]) * found.shape[3] // maps[i].shape[3]
            injected = injected + found[:, :, rows][:, :, :, columns]
        gamma = getattr(second, f"gamma{i}").half().float()
        x = stage(x + gamma * injected.permute(0, 2, 3, 1))
        lead_maps.append(x.permute(0, 3, 1, 2))
        x = x if stage.downsample is None else stage.downsample(x)
    return maps[1:], lead_maps[1:]


@pytest.mark.parametrize("size", [(64, 96), (70, 45), (33, 100), (48, 48), (5, 7)])
def test_both_streams_are_what_the_composition_says_at_any_size(filled, size):
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        found, expected = filled(images), by_hand(filled, images)
    for stream, wanted in zip(found, expected, strict=True):
        assert len(stream) == 3
        for y, z in zip(stream, wanted, strict=True):
            assert y.is_contiguous()
            torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4)


def test_the_first_stream_is_an_internimage_of_its_own(filled):
    images = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        alone = filled.cb_modules[0](images)
        for y, z in zip(filled(images)[0], alone[1:], strict=True):
            torch.testing.assert_close(y, z)


def test_a_new_second_stream_with_the_weights_of_the_first_computes_the_same():
    model = build().eval()
    first, second = model.cb_modules
    second.load_state_dict(first.state_dict(), strict=False)
    with torch.no_grad():
        for y, z in zip(*model(torch.randn(1, 3, 64, 64)), strict=True):
            torch.testing.assert_close(y, z)


def test_gammas_count_rounded_to_float16_and_learn_as_if_they_were_not():
    second = build().cb_modules[1]
    value = 1.0 + 2**-12 + 2**-20  # float16 has 10 bits behind the point
    with torch.no_grad():
        second.gamma0.fill_(value)
    x = torch.randn(1, 4, 4, 16)
    y = second.scaled(0, x)
    assert torch.equal(y, x)
    y.backward(torch.full_like(y, 1e-9))  # less than float16 can hold
    torch.testing.assert_close(second.gamma0.grad, 1e-9 * x.sum(dim=(0, 1, 2)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_rounding_is_that_of_float16_in_every_precision(dtype):
    second = build().cb_modules[1].to(dtype)
    with torch.no_grad():
        second.gamma1.copy_(torch.linspace(-3, 3, second.gamma1.numel()))
    ones = torch.ones(1, 1, 1, second.gamma1.numel(), dtype=dtype)
    assert torch.equal(second.scaled(1, ones)[0, 0, 0], second.gamma1.half().to(dtype))


def test_frozen_stages_neither_learn_nor_drop_in_either_stream():
    model = build(frozen_stages=2, drop_path_rate=0.5).train()
    for stream in model.cb_modules:
        assert [stage.training for stage in stream.levels] == [False, False, True, True]
        learning = {name for name, p in stream.named_parameters() if p.requires_grad}
        assert not any(name.startswith(("levels.0.", "levels.1.")) for name in learning)
        assert any(name.startswith("levels.2.") for name in learning)


def gradients(model):
    torch.manual_seed(1)
    model.zero_grad()
    streams = model(torch.randn(2, 3, 40, 36))
    sum(y.square().mean() for stream in streams for y in stream).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_checkpointing_changes_no_gradient_and_every_parameter_has_one(fill):
    plain, saving = fill(build().float()).float(), build(with_cp=True)
    saving.load_state_dict(plain.state_dict())
    expected, found = gradients(plain.train()), gradients(saving.train())
    for name, gradient in expected.items():
        assert gradient is not None, name
        torch.testing.assert_close(found[name], gradient)


def test_drop_path_acts_in_training_alone():
    model = build(drop_path_rate=0.9).train()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(images)[1][2], model(images)[1][2])
        model.eval()
        assert torch.equal(model(images)[1][2], model(images)[1][2])


@pytest.mark.parametrize("wanted", [(1, 2, 3), (3,), (0, 1), (0, 1, 2, 3)])
def test_the_wanted_stages_of_both_streams_are_returned(wanted):
    model = build(out_indices=((0, 1, 2, 3), wanted)).eval()
    with torch.no_grad():
        for stream in model(torch.randn(1, 3, 32, 32)):
            assert [y.shape[1] for y in stream] == [16 * 2**i for i in wanted]


def test_a_classifier_starts_both_streams(tmp_path):
    classifier = internimage.create_model("test_h", num_classes=10)
    path = tmp_path / "classifier.pth"
    torch.save({"model": classifier.state_dict()}, path)
    model = build(init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    connections = {k: v.clone() for k, v in model.cb_linears.state_dict().items()}
    model.init_weights()
    expected = classifier.state_dict()
    for i, stream in enumerate(model.cb_modules):
        state = {k: v for k, v in stream.state_dict().items() if not k.startswith("gamma")}
        assert all(torch.equal(value, expected[key]) for key, value in state.items())
        assert ("patch_embed.conv1.weight" in state) == (i == 0)
    assert not any(p.any() for name, p in model.named_parameters() if ".gamma" in name)
    assert all(torch.equal(v, connections[k]) for k, v in model.cb_linears.state_dict().items())
    assert model.init_report.missing == ()


def test_a_checkpoint_of_another_size_is_an_error(tmp_path):
    path = tmp_path / "classifier.pth"
    torch.save(internimage.create_model("test_t", num_classes=10).state_dict(), path)
    model = build(init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    with pytest.raises(ValueError, match="expected a checkpoint of this backbone"):
        model.init_weights()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(out_indices=(1, 2, 3)), "expected out_indices = the stages of both streams"),
        (dict(out_indices=((0, 1), (1, 2, 3))), r"expected out_indices\[0\] = all stages 0..3"),
        (dict(out_indices=((0, 1, 2, 3), (3, 1))), "ascending"),
        (dict(channels=15), "channels % 2 = 0"),
    ],
)
def test_fields_that_contradict_each_other_are_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


def test_the_fields_of_the_original_build_it_as_a_size_does():
    fields = dict(
        core_op="DCNv3",
        channels=16,
        depths=[1, 1, 2, 1],
        groups=[1, 2, 4, 8],
        mlp_ratio=4.0,
        drop_path_rate=0.0,
        norm_layer="LN",
        layer_scale=None,
        offset_scale=1.0,
        post_norm=False,
        dw_kernel_size=5,
        res_post_norm=True,
        level2_post_norm=True,
        level2_post_norm_block_ids=[0, 1],
        center_feature_scale=True,
        with_cp=False,
        out_indices=[(0, 1, 2, 3), (1, 2, 3)],
        init_cfg=None,
    )
    shapes = {key: value.shape for key, value in CBInternImage(**fields).state_dict().items()}
    assert shapes == {key: value.shape for key, value in build().state_dict().items()}


def test_nearest_enlargement_by_hand_is_that_of_pytorch():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    rows, columns = torch.arange(5) * 3 // 5, torch.arange(9) * 5 // 9
    expected = F.interpolate(x, size=(5, 9), mode="nearest")
    assert torch.equal(x[:, :, rows][:, :, :, columns], expected)
