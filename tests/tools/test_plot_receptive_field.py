"""The effective receptive field of layers whose field is known."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from internimage import create_model
from tools.plot_receptive_field import (
    area_share,
    draw_receptive_fields,
    main,
    receptive_field,
    stage_fields,
)


def test_the_field_of_a_convolution_is_its_kernel_around_the_middle():
    kernel = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0], [7.0, 8.0, 9.0]])
    weight = kernel.repeat(1, 3, 1, 1)
    batches = [torch.randn(2, 3, 9, 9), torch.randn(1, 3, 9, 9)]
    field = receptive_field(lambda x: F.conv2d(x, weight, padding=1), batches)
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[3:6, 3:6] = kernel.abs()
    torch.testing.assert_close(field, expected)


def test_a_stride_moves_the_middle():
    weight = torch.ones(1, 3, 3, 3)
    field = receptive_field(
        lambda x: F.conv2d(x, weight, stride=2, padding=1), [torch.rand(1, 3, 8, 8)]
    )
    # The map has 4x4 pixels; number 2 looks at the input pixels 3, 4, 5.
    assert field.nonzero().amin(dim=0).tolist() == [3, 3]
    assert field.nonzero().amax(dim=0).tolist() == [5, 5]


def test_the_field_is_the_mean_over_the_images_however_they_are_batched():
    def squares(x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] ** 2 / 2  # the gradient is the image itself

    images = torch.randn(6, 3, 5, 5)
    expected = images[:, 0, 2, 2].abs().double().mean() / 3  # a mean over the three colours
    for batches in ([images], images.split(1), images.split(4)):
        field = receptive_field(squares, batches)
        assert field[2, 2].item() == pytest.approx(expected.item(), rel=1e-6)
        assert field.count_nonzero() == 1


def test_a_layer_norm_does_not_hide_the_field():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8)

    def normed(x: torch.Tensor) -> torch.Tensor:
        return norm(conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    images = torch.randn(1, 3, 7, 7, requires_grad=True)
    (plain,) = torch.autograd.grad(normed(images)[:, :, 3, 3].sum(), images)
    field = receptive_field(normed, [images])
    assert plain.abs().max() < 1e-5  # what a plain sum over the channels would show
    assert field[2:5, 2:5].min() > 1e-2
    assert field.count_nonzero() == 9


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="expected images >= 1, got 0"):
        receptive_field(lambda x: x, [])


def test_the_area_of_a_share_is_the_smallest():
    field = torch.zeros(4, 5, dtype=torch.float64)
    field[0, :4] = torch.tensor([6.0, 2.0, 1.0, 1.0])
    assert area_share(field, 0.6) == 1 / 20
    assert area_share(field, 0.75) == 2 / 20
    assert area_share(field, 0.9) == 3 / 20
    assert area_share(torch.ones(4, 5), 1.0) == 1


def test_later_stages_see_more_of_the_image():
    torch.manual_seed(0)
    model = create_model("internimage_test_t", num_classes=10).eval()
    fields = stage_fields(model, [torch.randn(2, 3, 128, 128)])
    areas = [field.count_nonzero().item() for field in fields]
    assert len(fields) == 4
    assert areas == sorted(areas) and areas[0] < areas[3]
    # Stage 1: a 3x3 depth-wise convolution and the 3x3 grid at stride 4, behind the stem.
    rows = fields[0].sum(dim=1).nonzero()
    assert rows.max() - rows.min() < 32


def test_a_picture_and_the_command(tmp_path: Path, capsys):
    draw_receptive_fields(
        tmp_path / "drawn.png", [torch.rand(8, 8).double()], title="field", num_images=1
    )
    for index in range(2):
        Image.effect_noise((40, 40), 60).save(tmp_path / f"{index}.png")
    arguments = [tmp_path / "0.png", tmp_path / "1.png", "--model", "internimage_test_t"]
    arguments += ["--random-weights", "--image-size", 64, "--out", tmp_path / "field.png"]
    assert main([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "field.png")
    for name in ("drawn.png", "field.png"):
        with Image.open(tmp_path / name) as image:
            image.verify()
