"""torch.compile and torch.export take the whole model, with any batch and size of image."""

from __future__ import annotations

import pytest
import torch

import internimage

SIZES = ["internimage_test_t", "internimage_test_h"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_compiled_model_in_one_graph_gives_the_same_answers(name, filled_model, image):
    torch.compiler.reset()
    model = filled_model(name)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for n, height, width in ((2, 64, 32), (3, 96, 64)):
            x = image(n, height, width, 0).float()
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_model_learns_with_gradient_checkpointing(fill, image):
    torch.compiler.reset()
    model = fill(internimage.create_model("internimage_test_t", num_classes=7)).train()
    x = image(2, 32, 32, 0).float()
    model(x).square().sum().backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    model.load_state_dict(fill(model).state_dict())  # batch norm has moved
    model.set_grad_checkpointing()
    torch.compile(model, fullgraph=True)(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        scale = expected[key].abs().max()
        torch.testing.assert_close(
            parameter.grad, expected[key], rtol=1e-3, atol=1e-3 * scale.item(), msg=key
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_an_exported_model_survives_its_file(name, filled_model, image, tmp_path):
    model = filled_model(name)
    batch = torch.export.Dim("batch", max=64)
    with torch.no_grad():
        program = torch.export.export(
            model, (image(2, 64, 32, 0).float(),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        x = image(5, 64, 32, 1).float()
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_backbone_exports_with_any_size_of_image(image):
    model = internimage.create_model("internimage_test_t", features_only=True).eval()
    sizes = {
        0: torch.export.Dim("batch", max=64),
        2: torch.export.Dim("height", min=32, max=2048),
        3: torch.export.Dim("width", min=32, max=2048),
    }
    with torch.no_grad():
        program = torch.export.export(
            model, (image(2, 64, 96, 0).float(),), dynamic_shapes=(sizes,)
        ).module()
        x = image(1, 77, 50, 1).float()
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)
