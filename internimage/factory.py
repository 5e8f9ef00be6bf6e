"""Models by name: a size (``internimage_t``) or a release (``internimage_t_1k_224``)."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from internimage.checkpoint import load_checkpoint
from internimage.heads import NUM_CLASSES
from internimage.hub import RELEASED, default_release, find_release
from internimage.metaformer import InternImageMetaFormer
from internimage.model import InternImage
from internimage.variants import VARIANTS, get_variant, unknown_name

ALL_STAGES = (0, 1, 2, 3)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all released models that match a shell pattern.

    ``list_variants()`` has the bare sizes, which ``create_model`` takes as well.
    """
    return [name for name in RELEASED if fnmatch.fnmatch(name, pattern)]


def create_model(
    name: str,
    pretrained: bool = False,
    num_classes: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] = ALL_STAGES,
    metaformer: bool | None = None,
    **overrides: Any,
) -> InternImage:
    """Build a model by name.

    Args:
        name: a release (``list_models()``) or a size (``list_variants()``).
        pretrained: load the released weights; for a size those of its ImageNet-1k classifier. With
            another ``num_classes`` the last linear layer starts afresh.
        num_classes: None is the release's number, 1,000 for a size. Nothing to ``features_only``.
        features_only: no head; the model returns a list of stage maps.
        out_indices: the stages that ``features_only`` returns.
        metaformer: a head that takes time and place as well; None is as the release has it.
        overrides: further arguments of :class:`internimage.InternImage`.

    Raises:
        TypeError: an argument is unknown or of another kind.
        ValueError: the name is unknown (the message has the nearest ones), an argument is out of
            range, or ``pretrained`` is asked for a size that was never released.
        ConnectionError: the weights are not there and cannot be downloaded.
    """
    if not isinstance(name, str):
        raise TypeError(f"create_model: expected name = text, got {name!r}")
    if isinstance(out_indices, (int, str)) or not isinstance(out_indices, Sequence):
        raise TypeError(
            f"create_model: expected out_indices = a sequence of stage indices, got {out_indices!r}"
        )
    release = find_release(name)
    if release is None:
        known = name in VARIANTS or f"internimage_{name}" in VARIANTS
        if not known:
            raise ValueError(unknown_name("create_model", name, [*VARIANTS, *RELEASED]))
        variant_name = name if name in VARIANTS else f"internimage_{name}"
        is_metaformer, default_classes = False, NUM_CLASSES
    else:
        variant_name, is_metaformer = release.variant, release.metaformer and not features_only
        default_classes = release.num_classes
    if metaformer is not None:
        is_metaformer = metaformer
    if pretrained and release is None:
        release = default_release(variant_name)

    kwargs = get_variant(variant_name).to_kwargs()
    kwargs.update(overrides)
    if num_classes is not None or not features_only:
        kwargs["num_classes"] = default_classes if num_classes is None else num_classes
    if features_only:
        kwargs.update(features_only=True, out_indices=tuple(out_indices))
    elif tuple(out_indices) != ALL_STAGES:
        raise ValueError(
            f"create_model: expected features_only = True beside out_indices, got "
            f"{tuple(out_indices)}"
        )
    model = InternImageMetaFormer(**kwargs) if is_metaformer else InternImage(**kwargs)
    if pretrained and release is not None:
        selectable = (release.num_classes, model.num_classes) == (21841, 1000)
        fresh_head = model.num_classes != release.num_classes and not selectable
        load_checkpoint(model, release.name, reset_head=fresh_head and not features_only)
    return model
