"""torch.compile and torch.export take the whole model, with any batch and size of image."""

from __future__ import annotations

import copy

import pytest
import torch

import internimage

SIZES = ["internimage_test_t", "internimage_test_h"]


@pytest.fixture(scope="module")
def two_stages(fill):
    """A model of two stages: what a compiler sees in the others is the same again."""
    settings = {"channels": 16, "depths": (1, 1), "groups": (1, 2), "num_classes": 7}
    return fill(internimage.InternImage(**settings)).eval()


@pytest.mark.slow
@pytest.mark.inductor
def test_a_compiled_model_gives_the_same_answers_for_any_batch_and_size(two_stages, image):
    torch.compiler.reset()
    compiled = torch.compile(two_stages, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for n, height, width in ((2, 64, 32), (3, 96, 64)):
            x = image(n, height, width, 0).float()
            torch.testing.assert_close(compiled(x), two_stages(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_one_graph_serves_every_size_of_image(two_stages, image):
    torch.compiler.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(two_stages, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for n, height, width in ((2, 64, 32), (3, 96, 64), (4, 33, 77)):
            x = image(n, height, width, 0).float()
            torch.testing.assert_close(compiled(x), two_stages(x), rtol=1e-5, atol=1e-5)
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("with_cp", [False, True])
def test_a_model_with_gradients_is_one_graph(with_cp, two_stages, image):
    torch.compiler.reset()
    model = copy.deepcopy(two_stages).double()
    x = image(2, 32, 32, 0)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model.set_grad_checkpointing(with_cp)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = torch.autograd.grad(compiled(x).square().sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-8)


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
        2: torch.export.Dim("height", min=33, max=2048),
        3: torch.export.Dim("width", min=33, max=2048),
    }
    with torch.no_grad():
        program = torch.export.export(
            model, (image(2, 64, 96, 0).float(),), dynamic_shapes=(sizes,)
        ).module()
        x = image(1, 77, 50, 1).float()
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)
