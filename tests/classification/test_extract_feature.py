"""What modules put out: by their names, every time they are called, and as a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import internimage
from classification.data.transforms import build_preprocessing
from classification.extract_feature import main
from classification.feature_maps import (
    draw_feature_maps,
    extract_features,
    list_keys,
    principal_colors,
    to_map,
)
from classification.models import build_metadata
from internimage.image import load_image, preprocess
from internimage.predict import build_predictor

KEYS = ["patch_embed", "levels.0.blocks.0.dcn", "levels.3", "head"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.jpg"
    Image.effect_noise((50, 40), 80).convert("RGB").save(path)
    return path


@pytest.fixture
def weights(tmp_path: Path, make_config) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "weights.safetensors"
    model = internimage.create_model("test_t", num_classes=7)
    metadata = build_metadata(make_config(), class_names=[f"c{i}" for i in range(7)])
    internimage.save_checkpoint(model, path, metadata=metadata)
    return path


def test_the_outputs_are_those_of_a_forward_pass(
    small_yaml: Path, photo: Path, weights: Path, make_config, capsys
):
    arguments = [
        "--cfg",
        small_yaml,
        "--img",
        photo,
        "--resume",
        weights,
        "--save",
        "--keys",
        *KEYS,
    ]
    assert main([str(argument) for argument in arguments]) == 0
    target = photo.with_name("a photo.safetensors")
    features = load_file(target)
    assert list(features) == sorted(KEYS)
    predictor = build_predictor(checkpoint=weights)
    x = preprocess(load_image(photo), build_preprocessing(make_config()))[None]
    with torch.no_grad():
        assert torch.equal(features["head"], predictor.model(x))
        assert torch.equal(features["patch_embed"], predictor.model.patch_embed(x))
    assert features["levels.3"].shape[0] == 1 and features["levels.3"].ndim == 4
    printed = capsys.readouterr().out
    assert f"head  {(1, 7)}  torch.float32" in printed
    assert str(target) in printed
    picture = Image.open(photo.with_name("a photo_pca.png"))
    assert np.asarray(picture.convert("RGB")).std() > 10


def test_without_save_nothing_is_written(small_yaml: Path, photo: Path, weights: Path, capsys):
    before = set(photo.parent.iterdir())
    arguments = ["--cfg", small_yaml, "--img", photo, "--resume", weights, "--keys", "head"]
    assert main([str(argument) for argument in arguments]) == 0
    assert set(photo.parent.iterdir()) == before
    assert "head  (1, 7)" in capsys.readouterr().out


def test_the_keys_are_listed_without_an_image(small_yaml: Path, capsys):
    assert main(["--cfg", str(small_yaml), "--list-keys"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == list_keys(internimage.create_model("test_t"))
    assert set(KEYS) <= set(printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--img", "PHOTO"], "expected --img FILE and --keys KEY ..., or --list-keys"),
        (["--keys", "head"], "expected --img FILE and --keys KEY ..., or --list-keys"),
        (["--img", "PHOTO", "--keys", "level.3"], "got 'level.3'; did you mean levels.3?"),
        (["--img", "PHOTO", "--keys", "levels"], "got 'levels', which is not called for an image"),
        (["--img", "no.jpg", "--keys", "head"], "no.jpg"),
        (["--img", "PHOTO", "--keys", "head", "--resume", "no.pth"], "no.pth"),
        (["--img", "PHOTO", "--keys", "head", "--save", "no/where"], "an existing folder, got no"),
        (
            ["--img", "PHOTO", "--keys", "head", "--save", "/proc/x"],
            "expected --save in a writable",
        ),
        (["--img", "PHOTO", "--key", "head"], "did you mean --keys?"),
    ],
)
def test_a_mistake_is_one_line(small_yaml: Path, photo: Path, capsys, arguments, message):
    typed = [str(photo) if text == "PHOTO" else text for text in arguments]
    assert main(["--cfg", str(small_yaml), *typed]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


class Twice(nn.Module):
    """Calls one module twice and another that returns a list and changes it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(2, 2, bias=False)
        self.pair = Pair()
        self.drop = nn.Dropout(0.5)
        nn.init.eye_(self.scale.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.scale(self.scale(x) + 1)
        first, _ = self.pair(y)
        first += 100
        return self.drop(y)


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x.clone(), {"b": x * 2}]


def test_a_module_with_several_outputs_has_them_all_in_order():
    model, x = Twice(), torch.ones(1, 2)
    features = extract_features(model, x, ["scale", "pair", "drop"])
    assert list(features) == ["scale#0", "scale#1", "pair#0", "pair#1", "drop"]
    expected = {"scale#0": 1.0, "scale#1": 2.0, "pair#0": 2.0, "pair#1": 4.0, "drop": 2.0}
    for key, value in expected.items():  # copies, in evaluation mode
        assert torch.equal(features[key], torch.full((1, 2), value)), key
        assert not features[key].requires_grad
    assert not model.scale._forward_hooks


def test_keys_are_dotted_names():
    assert list_keys(Twice()) == ["scale", "pair", "drop"]


@pytest.mark.parametrize(
    ("shape", "map_shape"),
    [((1, 5, 5, 3), (5, 5, 3)), ((2, 3, 5, 5), (5, 5, 3)), ((1, 4, 4, 4), (4,) * 3)],
)
def test_both_layouts_of_a_map_are_told_apart(shape, map_shape):
    x = torch.rand(shape)
    expected = x[0].permute(1, 2, 0) if shape[1] == 3 else x[0]
    assert to_map(x).shape == map_shape
    assert torch.equal(to_map(x), expected)


def test_the_strongest_direction_is_red():
    """One channel varies from left to right by much, another from top to bottom by little."""
    x = torch.zeros(8, 8, 5)
    x[..., 3] = torch.linspace(-9, 9, 8)[None, :]
    x[..., 1] = torch.linspace(-1, 1, 8)[:, None]
    colors = principal_colors(x)
    assert colors.shape == (8, 8, 3)
    assert (colors[:, 1:, 0] >= colors[:, :-1, 0]).all() and colors[0, -1, 0] == 1
    assert (colors[1:, :, 1] >= colors[:-1, :, 1]).all() and colors[-1, 0, 1] == 1


@pytest.mark.parametrize("shape", [(1, 1, 6), (2, 1, 1), (4, 4, 2)])
def test_a_map_with_fewer_than_three_directions_has_colours(shape):
    colors = principal_colors(torch.rand(shape))
    assert colors.shape == (*shape[:2], 3)
    assert colors.isfinite().all() and 0 <= colors.min() and colors.max() <= 1


def test_a_single_point_is_grey_and_says_why(tmp_path: Path, monkeypatch):
    assert torch.equal(principal_colors(torch.randn(1, 1, 6)), torch.full((1, 1, 3), 0.5))
    titles: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda _, text, **__: titles.append(text))
    features = {"a": torch.randn(1, 1, 1, 6), "b": torch.randn(1, 2, 2, 6)}
    draw_feature_maps(tmp_path / "maps.png", torch.zeros(3, 4, 4, dtype=torch.uint8), features)
    assert titles == [
        "image",
        "a\n1x1, 6 channels\na single point varies in nothing",
        "b\n2x2, 6 channels",
    ]


def test_a_picture_has_its_panels_and_nothing_else(tmp_path: Path):
    """Four in the first row, one in the second: the rest of that row is white."""
    features = {f"map{i}": torch.rand(1, 6, 6, 4) for i in range(4)}
    draw_feature_maps(tmp_path / "x.png", torch.zeros(3, 8, 8, dtype=torch.uint8), features)
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 4
    assert (pixels[height:, width:] == 255).all()
    for row, column in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]:
        middle = pixels[row * height + height // 2, column * width + width // 2]
        assert (middle < 255).any()


def test_a_picture_needs_a_map(tmp_path: Path):
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"four dimensions, got head \(1, 7\)"):
        draw_feature_maps(tmp_path / "x.png", image, {"head": torch.zeros(1, 7)})
