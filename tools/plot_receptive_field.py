"""Draws the effective receptive field: how much each input pixel moves the middle of a stage's map.

    python tools/plot_receptive_field.py photos/*.jpg --model internimage_t_1k_224 --out field.png

After Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural
Networks", NeurIPS 2016: the mean over many images of the absolute gradient of the middle pixel of a
stage's map with respect to the image. Shown on a logarithmic scale, the largest value being 1.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from internimage import InternImage
from internimage.predict import Predictor
from tools.command_line import PictureParser

DECADES = 4  # of the colour scale


def receptive_field(
    feature_map: Callable[[Tensor], Tensor], batches: Iterable[Tensor], *, seed: int = 0
) -> Tensor:
    """Returns the mean absolute gradient of a map's middle pixel with respect to the input.

    The gradient is of the sum of the pixel's channels with random signs, drawn anew for each
    image. A plain sum would not do: behind a layer norm it hardly depends on anything.

    Args:
        feature_map: (N, 3, H, W) images to a (N, C, Ho, Wo) map; the images must not influence
            each other.
        batches: Normalised images, (N, 3, H, W) each.
        seed: Of the random signs.

    Returns:
        (H, W) float64, the mean over images and colours.

    Raises:
        ValueError: There is no image.
    """
    generator = torch.Generator().manual_seed(seed)
    total: Tensor | None = None
    num_images = 0
    for images in batches:
        images = images.detach().requires_grad_()
        features = feature_map(images)
        middle = features[:, :, features.shape[2] // 2, features.shape[3] // 2]  # (N, C)
        signs = torch.randint(0, 2, middle.shape, generator=generator).to(middle) * 2 - 1
        (gradient,) = torch.autograd.grad((middle * signs).sum(), images)
        field = gradient.abs().double().mean(dim=1).sum(dim=0)  # (H, W)
        total = field if total is None else total + field
        num_images += len(images)
    if total is None:
        raise ValueError("receptive_field: expected images >= 1, got 0")
    return total / num_images


def stage_fields(model: InternImage, batches: Sequence[Tensor]) -> list[Tensor]:
    """Returns the effective receptive field of each stage of a model in evaluation mode."""
    model.requires_grad_(False)  # only the images' gradient is wanted

    def stage_map(stage: int) -> Callable[[Tensor], Tensor]:
        return lambda x: model.forward_intermediates(x, (stage,), intermediates_only=True)[0]

    return [receptive_field(stage_map(stage), batches) for stage in range(model.num_stages)]


def area_share(field: Tensor, share: float) -> float:
    """Returns the smallest fraction of the pixels that hold a share of the field's sum.

    Args:
        field: (H, W) not negative.
        share: 0-1.
    """
    values = field.flatten().sort(descending=True).values.cumsum(dim=0)
    needed = int((values < share * values[-1]).sum()) + 1
    return min(needed, len(values)) / len(values)


def draw_receptive_fields(
    path: Path, fields: Sequence[Tensor], *, title: str, num_images: int
) -> None:
    """Draws one panel a stage.

    Args:
        path: The PNG file to write.
        fields: (H, W) The field of each stage, the first stage first.
        title: First line on top.
        num_images: How many images the fields are means of.
    """
    figure = Figure(figsize=(3.6 * len(fields), 4.7), layout="constrained")
    axes = figure.subplots(1, len(fields), squeeze=False)
    figure.suptitle(f"{title}\nmean of {num_images} images")
    colours = colormaps["magma"].with_extremes(under="black", bad="black")
    for stage, (panel, field) in enumerate(zip(axes[0], fields, strict=True)):
        height, width = field.shape
        picture = panel.imshow(
            (field / field.max()).numpy(),
            cmap=colours,
            norm=LogNorm(10.0**-DECADES, 1),
            interpolation="nearest",
        )
        panel.set_title(
            f"stage {stage + 1}\n90 % of the gradient on {100 * area_share(field, 0.9):.0f} % "
            "of the pixels",
            fontsize=10,
        )
        panel.set_xlabel("x (image pixels)")
    axes[0, 0].set_ylabel("y (image pixels)")
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.01, extend="min")
    bar.set_label("mean |gradient|, relative to the largest")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = PictureParser("plot_receptive_field", "Draws the effective receptive field by stage.")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")

    def draw(predictor: Predictor, args: argparse.Namespace) -> None:
        # One image a batch: the memory of a backward pass does not grow with the number of images.
        fields = stage_fields(predictor.model, [predictor.prepare(path) for path in args.images])
        title = f"Effective receptive field of {predictor.model_name}"
        draw_receptive_fields(args.out, fields, title=title, num_images=len(args.images))

    return parser.run(arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
