"""The shapes of InternImage-T, and calls of an operator with and without gradients."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

import ops_dcnv3

STAGES = ((64, 4), (128, 8), (256, 16), (512, 32))  # channels, groups
SIZES = {
    "224 px": ((56, 56), (28, 28), (14, 14), (7, 7)),
    "800x1280": ((200, 320), (100, 160), (50, 80), (25, 40)),
}
SETTINGS = (("224 px", 1), ("224 px", 8), ("800x1280", 1))


@dataclass(frozen=True)
class Shape:
    """One stage of InternImage-T at one image size."""

    image_size: str
    batch: int
    stage: int  # 0-3

    def __str__(self) -> str:
        """As a row's name."""
        return f"{self.image_size}, N={self.batch}, stage {self.stage + 1}"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return SIZES[self.image_size][self.stage]

    @property
    def groups(self) -> int:
        """G."""
        return STAGES[self.stage][1]

    @property
    def cells(self) -> int:
        """(pixel, group) pairs: N * H * W * G."""
        return self.batch * self.size[0] * self.size[1] * self.groups

    @property
    def plane_bytes(self) -> int:
        """Two float32 planes of a group with a border of three: the backward pass's buffers."""
        height, width = self.size
        return 2 * 4 * (height + 3) * (width + 3) * (STAGES[self.stage][0] // self.groups)

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """Input (N, H, W, C), offset (N, H, W, G*9*2), logits (N, H, W, G*9)."""
        generator = torch.Generator().manual_seed(0)
        widths = (STAGES[self.stage][0], self.groups * 18, self.groups * 9)
        return tuple(
            torch.randn((self.batch, *self.size, width), generator=generator).to(dtype)
            for width in widths
        )  # type: ignore[return-value]


@dataclass(frozen=True)
class Layer:
    """Arguments of one layer on a GPU; a 3 x 3 kernel whose output has the size of the input."""

    name: str
    batch: int
    side: int  # H and W
    channels: int
    groups: int

    def __str__(self) -> str:
        """As a row's name."""
        return f"{self.name}: {self.side}x{self.side}x{self.channels}, N={self.batch}"

    def floor_bytes(self, dtype: torch.dtype, direction: str) -> int:
        """What memory must move at least: each argument read once, each result written once."""
        pixels = self.batch * self.side**2
        image, points = pixels * self.channels, pixels * self.groups * 27
        numbers = 2 * image + points if direction == "forward" else 3 * image + 2 * points
        return numbers * dtype.itemsize

    def tensors(
        self, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Input, offset, logits and gradient of the output, in the dtype, offsets of a pixel."""
        generator = torch.Generator(device).manual_seed(0)
        widths = (self.channels, self.groups * 18, self.groups * 9, self.channels)
        return tuple(
            torch.empty(
                (self.batch, self.side, self.side, width), dtype=dtype, device=device
            ).normal_(generator=generator)
            for width in widths
        )  # type: ignore[return-value]


def stage_layers(batch: int) -> list[Layer]:
    """The stages of InternImage-T at 224 pixels."""
    return [
        Layer(f"stage {stage + 1}", batch, size[0], *STAGES[stage])
        for stage, size in enumerate(SIZES["224 px"])
    ]


# The published shape of DCNv3's and DCNv4's figures on an A100.
WIDE = Layer("wide", batch=64, side=56, channels=128, groups=4)


def import_backbone() -> ModuleType:
    """`internimage`, also without safetensors, which it needs for files of weights alone."""
    if importlib.util.find_spec("safetensors") is None:
        for name in ("safetensors", "safetensors.torch"):
            stand_in = ModuleType(name)
            stand_in.__getattr__ = lambda name: type(name, (Exception,), {})  # type: ignore
            sys.modules[name] = stand_in
    return importlib.import_module("internimage")


def internimage_t() -> torch.nn.Module:
    """The model with offsets as trained ones have them: a fresh layer's are zero."""
    internimage = import_backbone()
    torch.manual_seed(0)
    model = internimage.create_model("internimage_t")
    for module in model.modules():
        if isinstance(module, ops_dcnv3.DCNv3):
            torch.nn.init.normal_(module.offset.weight, std=module.channels**-0.5)
    return model


def shapes() -> Iterator[tuple[int, Shape]]:
    """Every shape, with the index of its setting."""
    for setting, (image_size, batch) in enumerate(SETTINGS):
        for stage in range(len(STAGES)):
            yield setting, Shape(image_size, batch, stage)


def normalised(logits: Tensor, groups: int) -> Tensor:
    """Softmax over the points of each group, (N, H, W, G*P)."""
    return logits.unflatten(-1, (groups, -1)).softmax(-1).flatten(-2)


Operation = Callable[..., Tensor]


def forward_only(operation: Operation, *arguments: object) -> Callable[[], object]:
    """A call without gradients."""

    @torch.no_grad()
    def run() -> Tensor:
        return operation(*arguments)

    return run


def forward_backward(operation: Operation, *tensors: Tensor) -> Callable[[], object]:
    """A call and the gradients of all its tensors."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    grad_output = torch.randn_like(operation(*leaves))

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(operation(*leaves), leaves, grad_output)

    return run


PASSES = {"forward": forward_only, "forward+backward": forward_backward}
