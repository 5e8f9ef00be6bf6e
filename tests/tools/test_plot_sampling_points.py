"""The drawn points against the operator itself: they must lie where it really reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from internimage import InternImage, create_model
from ops_dcnv3 import DCNv3, dcnv3_reference
from tools.plot_sampling_points import (
    draw_sampling_points,
    find_sampling_points,
    main,
    points_of,
    to_image,
)

LAYERS = {
    "as in InternImage": {},
    "wider grid": {"offset_scale": 2.0},
    "without middle": {"remove_center": True},
    "dilated": {"dilation": 2, "pad": 2},
    "five by five": {"kernel_size": 5, "pad": 2},
    "all at once": {
        "kernel_size": 5,
        "dilation": 2,
        "pad": 4,
        "offset_scale": 0.5,
        "remove_center": True,
    },
}


def read_weights(layer: DCNv3, offset: torch.Tensor, output: tuple[int, int], group: int, p: int):
    """How much one point of the operator reads from each input pixel: (H, W), float64.

    An impulse of the mask switches off all other points; the gradient of the output with respect to
    the input is then that point's bilinear weights.
    """
    g = layer.geometry
    height, width = offset.shape[1:3]
    value = torch.zeros(1, height, width, layer.channels, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(1, height, width, g.groups * g.num_points, dtype=torch.float64)
    mask[0, output[0], output[1], group * g.num_points + p] = 1
    y = dcnv3_reference(
        value,
        offset,
        mask,
        kernel_size=(g.kernel_h, g.kernel_w),
        stride=(g.stride_h, g.stride_w),
        padding=(g.padding_h, g.padding_w),
        dilation=(g.dilation_h, g.dilation_w),
        groups=g.groups,
        offset_scale=g.offset_scale,
        remove_center=g.remove_center,
    )
    channel = group * layer.channels // g.groups
    (gradient,) = torch.autograd.grad(y[0, output[0], output[1], channel], value)
    return gradient[0, :, :, channel]


@pytest.mark.parametrize("arguments", LAYERS.values(), ids=LAYERS)
def test_every_point_lies_at_the_centre_of_what_the_operator_reads(arguments: dict):
    layer = DCNv3(channels=4, group=2, **arguments)
    generator = torch.Generator().manual_seed(0)
    height, width, row, column = 21, 25, 10, 13
    size = (1, height, width, layer.geometry.groups * layer.geometry.num_points * 2)
    offset = torch.rand(size, generator=generator, dtype=torch.float64) * 1.9 - 0.95
    positions = points_of(layer, offset)[0, row, column]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for group in range(2):
        for p in range(layer.geometry.num_points):
            weights = read_weights(layer, offset, (row, column), group, p)
            assert weights.sum() == pytest.approx(1)  # wholly inside
            centre = [(weights * x).sum().item(), (weights * y).sum().item()]
            assert positions[group, p].tolist() == pytest.approx(centre, abs=1e-9)


def test_without_learned_offsets_the_points_are_the_regular_grid():
    positions = points_of(DCNv3(channels=4, group=1), torch.zeros(1, 5, 6, 18))
    expected = [[x, y] for x in (2, 3, 4) for y in (1, 2, 3)]  # x is the outer index
    assert positions[0, 2, 3, 0].tolist() == expected


def test_a_map_pixel_is_drawn_at_the_centre_of_the_image_pixels_it_covers():
    # Stride 4: the first cell covers the pixels 0, 1, 2, 3, the second 4, 5, 6, 7.
    assert to_image(torch.tensor([0.0, 1.0]), 4).tolist() == [1.5, 5.5]
    assert to_image(torch.tensor([2.0]), 1).tolist() == [2.0]


@pytest.fixture
def model() -> InternImage:
    """A small model whose offsets and weights are not those of the start."""
    torch.manual_seed(0)
    model = create_model("internimage_test_t", num_classes=10).eval()
    for stage in model.levels:
        for block in stage.blocks:
            torch.nn.init.normal_(block.dcn.offset.weight, std=0.5)
            torch.nn.init.normal_(block.dcn.mask.weight, std=0.5)
    return model


@pytest.mark.parametrize("point", [None, (40.0, 21.0), (0.0, 0.0)])
def test_a_stage_reads_its_map_exactly_around_the_points(model: InternImage, point):
    image = torch.randn(1, 3, 64, 96)
    found = find_sampling_points(model, image, point=point)
    assert [stage.stride for stage in found] == [4, 8, 16, 32]
    x, y = point or (47.5, 31.5)
    for stage in found:
        layer = model.levels[stage.stage].blocks[-1].dcn
        values = []
        hook = layer.input_proj.register_forward_hook(
            lambda module, args, value, values=values: values.append(value)
        )
        outputs = []
        hook_out = layer.output_proj.register_forward_pre_hook(
            lambda module, args, outputs=outputs: outputs.append(args[0])
        )
        model.forward_features(image)
        hook.remove()
        hook_out.remove()
        row, column = int((y + 0.5) / stage.stride), int((x + 0.5) / stage.stride)
        sampled = outputs[0][0, row, column]
        (gradient,) = torch.autograd.grad(sampled @ torch.randn_like(sampled), values[0])
        was_read = gradient[0].abs().amax(dim=-1) > 0
        positions = ((stage.positions + 0.5) / stage.stride - 0.5).reshape(-1, 2)
        expected = torch.zeros_like(was_read)
        for px, py in positions.tolist():
            for cx in (int(np.floor(px)), int(np.floor(px)) + 1):
                for cy in (int(np.floor(py)), int(np.floor(py)) + 1):
                    if 0 <= cy < was_read.shape[0] and 0 <= cx < was_read.shape[1]:
                        expected[cy, cx] = True
        assert torch.equal(was_read, expected)


def test_weights_are_those_of_a_softmax_and_the_cell_holds_the_point(model: InternImage):
    for stage in find_sampling_points(model, torch.randn(1, 3, 64, 64), point=(50.0, 9.0)):
        assert stage.weights.sum(dim=-1) == pytest.approx(1)
        assert stage.weights.min() > 0
        left, top = (stage.pixel - stage.stride / 2).tolist()
        assert left <= 50 <= left + stage.stride
        assert top <= 9 <= top + stage.stride
        assert len(stage.grid) == stage.positions.shape[1] == 9


def test_a_point_outside_the_image_is_an_error(model: InternImage):
    with pytest.raises(ValueError, match=r"expected a point in 0\.\.63, 0\.\.63, got 64, 3"):
        find_sampling_points(model, torch.randn(1, 3, 64, 64), point=(64, 3))


def test_looking_leaves_no_hook_behind(model: InternImage):
    find_sampling_points(model, torch.randn(1, 3, 64, 64))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_picture_has_a_panel_a_stage(model: InternImage, tmp_path: Path):
    points = find_sampling_points(model, torch.randn(1, 3, 64, 64))
    sizes = []
    for count in (2, 4):
        path = tmp_path / f"{count}.png"
        picture = np.zeros((64, 64, 3), np.uint8)
        draw_sampling_points(path, picture, points[:count], title="points")
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes[1][0] == 2 * sizes[0][0]


def test_the_command_draws_a_photograph(tmp_path: Path, capsys):
    Image.effect_noise((70, 50), 60).save(tmp_path / "photo.png")
    arguments = [tmp_path / "photo.png", "--model", "internimage_test_t", "--random-weights"]
    arguments += ["--point", 3, 4, "--out", tmp_path / "points.png"]
    assert main([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "points.png")
    with Image.open(tmp_path / "points.png") as image:
        image.verify()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.png", "--model", "internimage_n", "--random-weights"], "no.png"),
        (["PHOTO", "--model", "internimage_q", "--random-weights"], "internimage_q"),
        (["PHOTO"], "--model"),
        (["PHOTO", "--model", "internimage_n", "--random-weights", "--point", "99", "0"], "0..31"),
        (["PHOTO", "--model", "internimage_n", "--random-weights", "--out", "no/p.png"], "no/p"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys, monkeypatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("photo.png")
    assert main(["photo.png" if text == "PHOTO" else text for text in arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert printed.startswith("plot_sampling_points: error: ")
