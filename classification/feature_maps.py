"""What modules of a model put out for an image, and a picture of it.

Shape legend: N images, H W pixels of a map, C channels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from internimage.files import write_atomically
from internimage.script import nearest_hint

COLUMNS = 4
PANEL_INCHES = 2.4


def list_keys(model: nn.Module) -> list[str]:
    """Returns the dotted names of all modules."""
    return [name for name, _ in model.named_modules() if name]


@torch.no_grad()
def extract_features(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], keys: Sequence[str]
) -> dict[str, Tensor]:
    """Returns what modules put out in one forward pass.

    Args:
        model: Is in evaluation mode afterwards.
        inputs: What the model takes.
        keys: Dotted names of modules.

    Returns:
        A tensor a key, on the CPU. A module with several, be it that it is called several times or
        returns a list, has ``key#0``, ``key#1``, ... in their order.

    Raises:
        ValueError: There is no such module, or it puts out no tensor.
    """
    modules = dict(model.named_modules())
    for key in keys:
        if not key or key not in modules:
            hint = nearest_hint(key, list_keys(model))
            raise ValueError(f"extract_features: expected a module of the model, got {key!r}{hint}")
    outputs: dict[str, list[Tensor]] = {key: [] for key in keys}
    handles = [
        modules[key].register_forward_hook(
            lambda _module, _inputs, output, key=key: outputs[key].extend(
                # a copy: what follows may change it in place
                tensor.detach().to("cpu", copy=True).contiguous()
                for tensor in _tensors(output)
            )
        )
        for key in outputs
    ]
    try:
        model.eval()
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    features: dict[str, Tensor] = {}
    for key, tensors in outputs.items():
        if not tensors:
            raise ValueError(
                f"extract_features: expected a module that puts out tensors, got {key!r}, which "
                "is not called for an image"
            )
        names = [key] if len(tensors) == 1 else [f"{key}#{i}" for i in range(len(tensors))]
        features |= dict(zip(names, tensors, strict=True))
    return features


def draw_feature_maps(path: Path, image: Tensor, features: dict[str, Tensor]) -> None:
    """Draws the maps of an image: their three first principal components as red, green, blue.

    Args:
        path: A PNG file.
        image: (3, H, W), uint8.
        features: By name; those of four dimensions are maps, (1, H, W, C) as inside the model or
            (1, C, H, W).

    Raises:
        ValueError: There is no map.
    """
    maps = {name: to_map(tensor) for name, tensor in features.items() if tensor.ndim == 4}
    if not maps:
        raise ValueError(
            "draw_feature_maps: expected an output of four dimensions, got "
            + ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in features.items())
        )
    panels = {"image": image.permute(1, 2, 0)}
    panels |= {
        f"{name}\n{x.shape[0]}x{x.shape[1]}, {x.shape[2]} channels{_remark(x)}": principal_colors(x)
        for name, x in maps.items()
    }
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (columns * PANEL_INCHES, rows * (PANEL_INCHES + 0.4))
    figure = Figure(figsize=size, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, pixels) in zip(grid, panels.items(), strict=False):
        axes.imshow(pixels.numpy(), interpolation="nearest")
        axes.set_title(title, fontsize=8)
    for axes in grid:
        axes.set_axis_off()
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))


def _remark(x: Tensor) -> str:
    """Says why a map (H, W, C) of one point is grey."""
    return "" if x.shape[0] * x.shape[1] > 1 else "\na single point varies in nothing"


def to_map(tensor: Tensor) -> Tensor:
    """Returns the map (H, W, C) of the first image.

    Images are square, so the two equal sizes side by side are height and width; where all three are
    equal it is (N, H, W, C), which the model has inside.
    """
    _, a, b, c = tensor.shape
    is_channels_first = b == c and a != b
    return tensor[0].permute(1, 2, 0) if is_channels_first else tensor[0]


def principal_colors(x: Tensor) -> Tensor:
    """Returns the colours (H, W, 3), 0-1, of a map (H, W, C): its first principal components.

    A single point has none and is grey.
    """
    height, width, channels = x.shape
    if height * width == 1:
        return torch.full((1, 1, 3), 0.5, dtype=torch.float64)
    pixels = x.reshape(-1, channels).double()
    pixels = pixels - pixels.mean(dim=0)
    u, s, vh = torch.linalg.svd(pixels, full_matrices=False)
    scores = u[:, :3] * s[:3]  # (H * W, up to 3)
    # A component has no sign of its own: its largest weight is positive, in every run.
    top = vh[:3].gather(1, vh[:3].abs().argmax(dim=1, keepdim=True)).squeeze(1)
    scores = scores * top.sign()
    # Single outliers would leave the rest grey.
    low, high = scores.quantile(torch.tensor([0.01, 0.99], dtype=scores.dtype), dim=0)
    scaled = ((scores - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    colors = torch.full((height * width, 3), 0.5, dtype=scores.dtype)
    colors[:, : scaled.shape[1]] = scaled
    return colors.reshape(height, width, 3)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
