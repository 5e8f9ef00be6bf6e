"""A model in training: stochastic depth, gradient checkpointing, frozen stages, autocast."""

from __future__ import annotations

import pytest
import torch

import internimage
from internimage.architecture import drop_path_rates
from internimage.blocks import InternImageBlock
from internimage.layers import DropPath

SIZES = ["internimage_test_t", "internimage_test_s", "internimage_test_h", "internimage_test_g"]


def gradients(model, x):
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return y.detach(), {k: p.grad.clone() for k, p in model.named_parameters()}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("input_needs_gradient", [False, True])
def test_gradient_checkpointing_changes_no_number(name, input_needs_gradient, fill, image):
    model = fill(internimage.create_model(name, num_classes=7)).double().train()
    x = image(2, 32, 32, 0).requires_grad_(input_needs_gradient)
    plain = gradients(model, x)
    model.set_grad_checkpointing()
    torch.testing.assert_close(gradients(model, x), plain, rtol=1e-9, atol=1e-12)


def test_gradient_checkpointing_runs_every_block_twice(fill, image):
    counts = {}
    for with_cp in (False, True):
        model = internimage.create_model("internimage_test_t", num_classes=7, with_cp=with_cp)
        calls = []
        for module in model.modules():
            if isinstance(module, InternImageBlock):
                module.dcn.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        model(image(2, 32, 32, 0).float()).sum().backward()
        counts[with_cp] = len(calls)
    assert counts == {False: 5, True: 10}


def test_stochastic_depth_rises_over_all_blocks_or_is_uniform():
    linear = drop_path_rates((1, 2, 2), 0.4, "linear")
    assert linear == [[0.0], [pytest.approx(0.1), pytest.approx(0.2)], [pytest.approx(0.3), 0.4]]
    assert drop_path_rates((1, 2), 0.3, "uniform") == [[0.3], [0.3, 0.3]]
    assert drop_path_rates((1,), 0.3, "linear") == [[0.0]]
    model = internimage.create_model("internimage_n", drop_path_rate=0.5)
    rates = [m.drop_path.rate for m in model.modules() if isinstance(m, InternImageBlock)]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.5, 6))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    y = drop(torch.ones(4000, 3, 2))
    values = y.flatten(1)
    assert (values == values[:, :1]).all()
    assert sorted(set(values[:, 0].tolist())) == [0.0, pytest.approx(1 / 0.75)]
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)
    x = torch.randn(2, 3)
    assert drop.eval()(x) is x


def test_dropout_acts_in_training_only(image):
    torch.manual_seed(0)
    model = internimage.create_model("internimage_test_t", num_classes=7, drop_rate=0.5)
    x = image(1, 64, 64, 0).float()
    assert not torch.equal(model.train()(x), model(x))
    torch.testing.assert_close(model.eval()(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
def test_frozen_stages_do_not_learn_and_do_not_drop(frozen):
    model = internimage.create_model(
        "internimage_test_t", frozen_stages=frozen, drop_path_rate=0.5, drop_path_type="uniform"
    )
    assert model.train() is model
    for i, stage in enumerate(model.levels):
        is_frozen = i < frozen
        assert stage.training is not is_frozen
        assert stage.blocks[0].drop_path.training is not is_frozen
        assert all(p.requires_grad is not is_frozen for p in stage.parameters())
    assert all(p.requires_grad for p in model.patch_embed.parameters())


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_close_to_float32_and_trains(name, dtype, fill, image):
    model = fill(internimage.create_model(name, num_classes=7)).eval()
    x = image(2, 32, 32, 4).float()
    expected = model(x)
    with torch.autocast("cpu", dtype=dtype):
        logits = model(x)
    scale = expected.abs().max()
    assert (logits.float() - expected).abs().max() < scale * (
        0.1 if dtype is torch.bfloat16 else 0.02
    )
    logits.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_autocast_takes_images_of_the_lower_precision(fill, image):
    model = fill(internimage.create_model("internimage_test_t", num_classes=7)).eval()
    x = image(1, 32, 32, 0).float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x.bfloat16()).isfinite().all()


def test_bfloat16_weights_run(fill, image):
    model = fill(internimage.create_model("internimage_test_t", num_classes=7)).eval().bfloat16()
    with torch.no_grad():
        assert model(image(1, 32, 32, 0).bfloat16()).isfinite().all()
