"""Draws where DCNv3 reads: the sampling points of one layer a stage over an image.

    python tools/plot_sampling_points.py photo.jpg --model internimage_t_1k_224 --out points.png

Each panel takes one stage's last block. For one output pixel it shows all points of all groups: at
the grid position plus the learned offset, coloured and sized by the weight after the softmax. The
crosses are the regular 3x3 grid that the layer starts from. Points outside the image read zeros.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor, nn

from internimage import InternImage
from internimage.predict import Predictor
from ops_dcnv3 import DCNv3
from ops_dcnv3.reference import sampling_positions
from tools.command_line import PictureParser, to_picture

OUTSIDE = "#d0d8e0"  # colour of what is not image


class SamplingPoints(NamedTuple):
    """The sampling points of one output pixel of one layer.

    Args:
        stage: The layer's stage, from 0.
        stride: Image pixels a pixel of the stage's map.
        pixel: (2,) x and y of the output pixel, in image pixels.
        positions: (G, P, 2) x and y of the points, in image pixels.
        weights: (G, P) The softmax weight of each point; a group's sum is 1.
        grid: (P, 2) x and y of the points without learned offsets, in image pixels.
    """

    stage: int
    stride: int
    pixel: Tensor
    positions: Tensor
    weights: Tensor
    grid: Tensor


def points_of(layer: DCNv3, offset: Tensor) -> Tensor:
    """Returns where a layer reads.

    Args:
        layer: The layer; its geometry is read.
        offset: (N, Ho, Wo, G*P*2) Learned offsets in the layer's grid units, x before y.

    Returns:
        (N, Ho, Wo, G, P, 2) x and y in pixels of the layer's input, centres at integers.
    """
    y, x = sampling_positions(offset, layer.geometry)
    return torch.stack([x, y], dim=-1)


def to_image(position: Tensor, stride: int) -> Tensor:
    """Maps positions in a stage's map to the image: the centre of a map pixel's cell.

    Map pixel p covers the image pixels p * stride ... (p + 1) * stride - 1; centres are at integers
    in both, so that position p lies at (p + 0.5) * stride - 0.5.
    """
    return (position + 0.5) * stride - 0.5


@torch.inference_mode()
def find_sampling_points(
    model: InternImage, image: Tensor, *, point: tuple[float, float] | None = None
) -> list[SamplingPoints]:
    """Runs a model on an image and returns the points of each stage's last block.

    Args:
        model: The model, in evaluation mode.
        image: (1, 3, H, W) The normalised image.
        point: x and y in image pixels of the output pixel, 0-based; None is the middle.

    Returns:
        One entry a stage; its output pixel is the one whose cell holds ``point``.

    Raises:
        ValueError: The point lies outside the image.
    """
    height, width = image.shape[-2:]
    x, y = ((width - 1) / 2, (height - 1) / 2) if point is None else point
    if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
        raise ValueError(
            f"find_sampling_points: expected a point in 0..{width - 1}, 0..{height - 1}, "
            f"got {x}, {y}"
        )
    layers = [_last_layer(model, stage) for stage in range(model.num_stages)]
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, args: inputs.update({module: args[0]}))
        for layer in layers
    ]
    try:
        model.forward_features(image)
    finally:
        for hook in hooks:
            hook.remove()

    found = []
    for stage, layer in enumerate(layers):
        offset, logits = layer.offsets_and_logits(layer.control(inputs[layer]))
        stride = model.feature_info[stage]["reduction"]
        column, row = int((x + 0.5) / stride), int((y + 0.5) / stride)
        # The map of an image whose sides are no multiples of the stride has the larger size.
        positions = to_image(points_of(layer, offset)[0, row, column], stride)
        plain = to_image(points_of(layer, torch.zeros_like(offset))[0, row, column], stride)
        weights = logits[0, row, column].unflatten(0, positions.shape[:2]).softmax(dim=-1)
        pixel = to_image(torch.tensor([column, row]).to(offset), stride)
        found.append(SamplingPoints(stage, stride, pixel, positions, weights, plain[0]))
    return found


def _last_layer(model: InternImage, stage: int) -> DCNv3:
    layer = model.get_submodule(f"levels.{stage}.blocks.{model.depths[stage] - 1}.dcn")
    assert isinstance(layer, DCNv3)
    return layer


def draw_sampling_points(
    path: Path, image: np.ndarray, points: Sequence[SamplingPoints], *, title: str
) -> None:
    """Draws one panel a stage.

    Args:
        path: The PNG file to write.
        image: (H, W, 3) The image, 0-255.
        points: What ``find_sampling_points`` returned for it.
        title: Text on top.
    """
    figure = Figure(figsize=(4 * len(points), 4.9), layout="constrained")
    axes = figure.subplots(1, len(points), squeeze=False)
    figure.suptitle(title)
    largest = max(float(stage.weights.max()) for stage in points)
    for panel, stage in zip(axes[0], points, strict=True):
        scatter = _draw_panel(panel, image, stage, largest)
    bar = figure.colorbar(scatter, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label("weight of a point (a group's weights sum to 1)")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    handles.append(Patch(color=OUTSIDE, label="outside the image (zero padding)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=120)


def _draw_panel(axes: Axes, image: np.ndarray, stage: SamplingPoints, largest: float) -> Any:
    height, width = image.shape[:2]
    axes.set_facecolor(OUTSIDE)
    axes.imshow(image, interpolation="nearest", zorder=0)
    axes.imshow(np.full((height, width, 3), 255), alpha=0.35, zorder=1)  # lets the points stand out
    left, top = (stage.pixel - stage.stride / 2).tolist()
    cell = Rectangle(
        (left, top),
        stage.stride,
        stage.stride,
        fill=False,
        edgecolor="#D55E00",
        linewidth=2,
        zorder=4,
        label="output pixel",
    )
    axes.add_patch(cell)
    positions, weights = stage.positions.reshape(-1, 2), stage.weights.flatten()
    order = weights.argsort()  # the heavy points on top
    scatter = axes.scatter(
        positions[order, 0],
        positions[order, 1],
        s=8 + 110 * weights[order] / largest,
        c=weights[order],
        cmap=colormaps["viridis"],
        vmin=0,
        vmax=largest,
        edgecolors="white",
        linewidths=0.6,
        zorder=3,
        label="sampling points of all groups",
    )
    axes.scatter(
        stage.grid[:, 0],
        stage.grid[:, 1],
        marker="x",
        s=45,
        color="black",
        linewidths=1.4,
        zorder=5,
        label="regular grid",
    )
    # All points, and at least the image, with a margin.
    everything = torch.cat([positions, stage.grid, torch.tensor([[0, 0], [width - 1, height - 1]])])
    low, high = everything.amin(dim=0), everything.amax(dim=0)
    margin = 0.06 * float((high - low).max())
    middle, half = (low + high) / 2, float((high - low).max()) / 2 + margin
    axes.set_xlim(float(middle[0]) - half, float(middle[0]) + half)
    axes.set_ylim(float(middle[1]) + half, float(middle[1]) - half)
    axes.set_title(
        f"stage {stage.stage + 1}, stride {stage.stride}, {stage.positions.shape[0]} groups"
    )
    axes.set_xlabel("x (image pixels)")
    axes.set_ylabel("y (image pixels)")
    return scatter


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = PictureParser("plot_sampling_points", "Draws where DCNv3 reads, stage by stage.")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image file")
    parser.add_argument(
        "--point",
        type=float,
        nargs=2,
        metavar=("X", "Y"),
        help="output pixel, in pixels of the resized image from its top left (default: the middle)",
    )

    def draw(predictor: Predictor, args: argparse.Namespace) -> None:
        x = predictor.prepare(args.image)
        points = find_sampling_points(predictor.model, x, point=args.point)
        picture = to_picture(x[0], predictor.preprocessing)
        title = f"DCNv3 sampling points of {predictor.model_name} on {args.image.name}"
        draw_sampling_points(args.out, picture, points, title=title)

    return parser.run(arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
