"""The backbones that models of OpenMMLab are compared with: InternImage-T and those of its size."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import internimage.integrations.openmmlab  # noqa: F401  registers InternImage

YARDSTICK = "internimage_t"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """A backbone in a model.

    Args:
        title: its name in a table.
        backbone: its block of the config; None leaves the ResNet-50 of the package's base.
        in_channels: widths of its four maps.
        needs: the package it comes from beside the model's, and the command that installs it.
    """

    title: str
    backbone: dict[str, Any] | None
    in_channels: tuple[int, int, int, int]
    needs: tuple[str, str] | None = None


def contenders(
    package: Literal["mmdet", "mmseg"], resnet: dict[str, Any] | None = None
) -> dict[str, Contender]:
    """Returns the backbones for a package's models, by name.

    Args:
        package: whose ResNet and Swin they are.
        resnet: the block of its ResNet-50, if its base has none.
    """
    return {
        YARDSTICK: Contender(
            title="InternImage-T",
            backbone=dict(type="InternImage", arch="t", layer_scale=1.0),
            in_channels=(64, 128, 256, 512),
        ),
        "resnet_50": Contender(
            title=f"ResNet-50 ({package})", backbone=resnet, in_channels=(256, 512, 1024, 2048)
        ),
        "convnext_t": Contender(
            title="ConvNeXt-T (mmpretrain)",
            backbone=dict(
                type="mmpretrain.ConvNeXt",
                arch="tiny",
                out_indices=(0, 1, 2, 3),
                layer_scale_init_value=1.0,
                gap_before_final_norm=False,
            ),
            in_channels=(96, 192, 384, 768),
            needs=(
                "mmpretrain",
                "pip install --no-deps onedl-mmpretrain==1.3.6 model-index ordered-set mat4py",
            ),
        ),
        "swin_t": Contender(
            title=f"Swin-T ({package})",
            backbone=dict(
                type="SwinTransformer",
                embed_dims=96,
                depths=(2, 2, 6, 2),
                num_heads=(3, 6, 12, 24),
                window_size=7,
                out_indices=(0, 1, 2, 3),
            ),
            in_channels=(96, 192, 384, 768),
        ),
    }


def load_package(contender: Contender) -> None:
    """Imports the package that a backbone comes from, which registers it.

    Raises:
        ImportError: it is missing.
    """
    if contender.needs is not None and contender.needs[0] == "mmpretrain":
        import mmpretrain.models  # noqa: F401


def available(names: Sequence[str], known: Mapping[str, Contender]) -> list[str]:
    """Returns the contenders that can be built here; says how to get the others."""
    there = []
    for name in names:
        needs = known[name].needs
        if needs is not None and importlib.util.find_spec(needs[0]) is None:
            print(f"note: no row for {known[name].title}: {needs[1]}\n")
        else:
            there.append(name)
    return there
