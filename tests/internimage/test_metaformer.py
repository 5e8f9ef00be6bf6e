from __future__ import annotations

import pytest
import torch

import internimage


def build(**arguments) -> internimage.InternImageMetaFormer:
    settings = {"channels": 16, "depths": (1, 1, 2, 1), "groups": (1, 2, 4, 8), "num_classes": 6}
    return internimage.InternImageMetaFormer(**(settings | arguments))


def test_the_released_size_has_the_documented_keys():
    with torch.device("meta"):
        model = internimage.create_model("internimage_h_22ktoinat18_384")
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for encoder, features in (("meta_head_1", 4), ("meta_head_2", 3)):
        assert shapes[f"{encoder}.0.weight"] == (64, features)
        assert shapes[f"{encoder}.2.weight"] == (64,)
        for name in ("w1", "w2"):
            assert shapes[f"{encoder}.3.{name}.weight"] == (64, 64)
        for name in ("norm_fn1", "norm_fn2"):
            assert shapes[f"{encoder}.3.{name}.weight"] == (64,)
    assert shapes["meta_norm.weight"] == (128,)
    assert shapes["meta_head.weight"] == (8142, 128)
    assert shapes["head.weight"] == (8142, 768)


def test_time_and_place_are_added_to_the_image(fill, image):
    model = fill(build()).double().eval()
    x = image(2, 32, 32, 0)
    times = torch.randn(2, 4, dtype=torch.float64)
    places = torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        both = model((x, times, places))
        alone = model.forward_head(model.forward_features(x))
        # The same by hand, layer by layer.
        encoded = []
        for values, head in ((times, model.meta_head_1), (places, model.meta_head_2)):
            h = torch.nn.functional.layer_norm(
                (values @ head[0].weight.T + head[0].bias).clamp(min=0),
                (64,), head[2].weight, head[2].bias, 1e-5,
            )  # fmt: skip
            y = h
            for linear, norm in ((head[3].w1, head[3].norm_fn1), (head[3].w2, head[3].norm_fn2)):
                y = (y @ linear.weight.T + linear.bias).clamp(min=0)
                y = torch.nn.functional.layer_norm(y, (64,), norm.weight, norm.bias, 1e-5)
            encoded.append(h + y)
        meta = torch.cat(encoded, dim=1)
        meta = torch.nn.functional.layer_norm(
            meta, (128,), model.meta_norm.weight, model.meta_norm.bias, 1e-6
        )
        expected = alone + meta @ model.meta_head.weight.T + model.meta_head.bias
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-10)


def test_it_learns_and_its_classifier_can_be_replaced(image):
    model = build().train()
    inputs = (image(2, 32, 32, 0).float(), torch.randn(2, 4), torch.randn(2, 3))
    model(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.reset_classifier(3)
    assert model.eval()(inputs).shape == (2, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 32, 32), "images, times, places"),
        ((torch.zeros(1, 3, 32, 32), torch.zeros(1, 4)), "2 values"),
        ((torch.zeros(1, 3, 32, 32), torch.zeros(1, 3), torch.zeros(1, 3)), r"times \(1, 4\)"),
        ((torch.zeros(2, 3, 32, 32), torch.zeros(2, 4), torch.zeros(1, 3)), r"\(2, 3\)"),
    ],
)
def test_wrong_input_is_a_value_error(x, message):
    with pytest.raises(ValueError, match=f"InternImageMetaFormer.forward: expected .*{message}"):
        build()(x)


@pytest.mark.parametrize("arguments", [{"features_only": True}, {"num_classes": 0}])
def test_a_head_is_what_it_is_for(arguments):
    with pytest.raises(ValueError, match="InternImageMetaFormer: expected"):
        build(**arguments)
