"""A model of one DCNv3 layer that is exported in a second, and the call that exports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ops_dcnv3
from internimage.export import ExportOptions, ExportReport, ModelMetadata, export_onnx

METADATA = ModelMetadata(
    task="classification",
    model="small",
    classes=("ant", "bee", "cat"),
    mean=(127.5, 127.5, 127.5),
    std=(64.0, 64.0, 64.0),
    resize={"mode": "crop", "shorter_side": 16, "size": [16, 16], "filter": "bicubic"},
)
AXES = {"input": {0: "batch", 2: "height", 3: "width"}}


class SmallModel(nn.Module):
    """Images (N, 3, H, W) to logits (N, 3)."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
            self.layer = ops_dcnv3.DCNv3(8, group=2)
            self.head = nn.Linear(8, 3)
            for parameters in (self.layer.offset, self.layer.mask):
                nn.init.normal_(parameters.weight, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        features = self.layer(self.stem(x).permute(0, 2, 3, 1)).mean(dim=(1, 2))
        first, second = features.split([3, 5], dim=-1)  # onnx cannot convert Split to opset 17
        return self.head(torch.cat([second, first], dim=-1))


def images(*shape: int, seed: int = 0) -> dict[str, Tensor]:
    """The input of :class:`SmallModel`."""
    return {"input": torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


def export_small(
    path: Path,
    model: nn.Module | None = None,
    *,
    options: ExportOptions | None = None,
    example: Mapping[str, Tensor] | None = None,
    **changes: Any,
) -> ExportReport:
    """Export :class:`SmallModel`, or another, to a path."""
    arguments: dict[str, Any] = {
        "output_names": ["logits"],
        "dynamic_axes": AXES,
        "options": options or ExportOptions(),
        "metadata": METADATA,
        "tolerance": 1e-5,
    }
    return export_onnx(
        SmallModel().eval() if model is None else model,
        images(1, 3, 16, 16) if example is None else example,
        path,
        **{**arguments, **changes},
    )
