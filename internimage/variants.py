"""The sizes of InternImage, one row each. Sizes live only here.

Rows t to g: the paper's table 1 and the released configurations. Row n is the small size of the
demo, and the ``test_*`` rows are reductions of t, s, h and g that keep what is special about each
and run in milliseconds.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from internimage.architecture import check_stages

PREFIX = "internimage_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One size: arguments of :class:`internimage.InternImage` and its image size.

    Args:
        channels: C of the first stage.
        depths: blocks of each stage.
        groups: DCNv3 groups of each stage.
        drop_path_rate: stochastic depth of the released training recipe, 0-1.
        image_size: side of the training image, pixels.
        layer_scale: initial factor of residual branches.
        offset_scale: factor of DCNv3's grid and offsets.
        post_norm: norms behind the branches.
        res_post_norm: norms before and behind the branches.
        dw_kernel_size: kernel of DCNv3's depthwise convolution.
        level2_post_norm_block_ids: blocks of the third stage with a norm of the trunk behind them.
        center_feature_scale: gate between DCNv3's output and input.
        use_clip_projector: the attention-pooling head.

    Raises:
        TypeError: channels, depths or groups are no whole numbers.
        ValueError: a width is not divisible by its groups, or the lengths differ.
    """

    channels: int
    depths: tuple[int, ...]
    groups: tuple[int, ...]
    drop_path_rate: float
    image_size: int
    layer_scale: float | None = None
    offset_scale: float = 1.0
    post_norm: bool = False
    res_post_norm: bool = False
    dw_kernel_size: int | None = None
    level2_post_norm_block_ids: tuple[int, ...] = ()
    center_feature_scale: bool = False
    use_clip_projector: bool = False

    def __post_init__(self) -> None:
        check_stages("Variant", self.channels, self.depths, self.groups)

    def to_kwargs(self) -> dict[str, Any]:
        """Return the arguments of the constructor of ``InternImage``."""
        kwargs = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "image_size"
        }
        kwargs["level2_post_norm"] = bool(self.level2_post_norm_block_ids)
        kwargs["level2_post_norm_block_ids"] = self.level2_post_norm_block_ids or None
        return kwargs


_T = Variant(
    channels=64, depths=(4, 4, 18, 4), groups=(4, 8, 16, 32), drop_path_rate=0.1, image_size=224
)
_S = Variant(
    channels=80,
    depths=(4, 4, 21, 4),
    groups=(5, 10, 20, 40),
    drop_path_rate=0.4,
    image_size=224,
    layer_scale=1e-5,
    post_norm=True,
)
_L = Variant(
    channels=160,
    depths=(5, 5, 22, 5),
    groups=(10, 20, 40, 80),
    drop_path_rate=0.1,
    image_size=384,
    layer_scale=1e-5,
    offset_scale=2.0,
    post_norm=True,
)
_H = Variant(
    channels=320,
    depths=(6, 6, 32, 6),
    groups=(10, 20, 40, 80),
    drop_path_rate=0.2,
    image_size=640,
    res_post_norm=True,
    dw_kernel_size=5,
    level2_post_norm_block_ids=(5, 11, 17, 23, 29),
    center_feature_scale=True,
    use_clip_projector=True,
)
_G = Variant(
    channels=512,
    depths=(2, 2, 48, 4),
    groups=(16, 32, 64, 128),
    drop_path_rate=0.4,
    image_size=512,
    post_norm=True,
    dw_kernel_size=5,
    level2_post_norm_block_ids=(5, 11, 17, 23, 29, 35, 41, 47),
    center_feature_scale=True,
    use_clip_projector=True,
)
_TINY: dict[str, Any] = {
    "channels": 16,
    "depths": (1, 1, 2, 1),
    "groups": (1, 2, 4, 8),
    "image_size": 32,
    "drop_path_rate": 0.0,
}

VARIANTS: dict[str, Variant] = {
    "internimage_n": Variant(
        channels=32, depths=(1, 1, 3, 1), groups=(2, 4, 8, 16), drop_path_rate=0.1, image_size=32
    ),
    "internimage_t": _T,
    "internimage_s": _S,
    "internimage_b": dataclasses.replace(
        _S, channels=112, groups=(7, 14, 28, 56), drop_path_rate=0.5
    ),
    "internimage_l": _L,
    "internimage_xl": dataclasses.replace(
        _L, channels=192, depths=(5, 5, 24, 5), groups=(12, 24, 48, 96), drop_path_rate=0.2
    ),
    "internimage_h": _H,
    "internimage_g": _G,
    "internimage_test_t": dataclasses.replace(_T, **_TINY),
    "internimage_test_s": dataclasses.replace(_S, **_TINY),
    "internimage_test_h": dataclasses.replace(_H, **_TINY, level2_post_norm_block_ids=(0, 1)),
    "internimage_test_g": dataclasses.replace(_G, **_TINY, level2_post_norm_block_ids=(1,)),
}
"""Every size by name."""


def list_variants() -> list[str]:
    """Return the names of all sizes, the demo's and the tests' among them."""
    return list(VARIANTS)


def get_variant(name: str) -> Variant:
    """Return a size by its name, ``"internimage_t"`` or ``"t"`` for short.

    Raises:
        ValueError: there is no such size; the message names the nearest ones.
    """
    full = full_name(name)
    if full not in VARIANTS:
        raise ValueError(unknown_name("get_variant", name, list(VARIANTS)))
    return VARIANTS[full]


def full_name(name: str) -> str:
    """Return the name of a size or a release that may have been given for short: "t"."""
    return name if name.startswith(PREFIX) else PREFIX + name


def unknown_name(function: str, name: str, names: list[str]) -> str:
    """Word the error for a name that is not in ``names``, with the nearest ones."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    return f"{function}: expected a known model name, got {name!r}; nearest: {', '.join(near)}"
