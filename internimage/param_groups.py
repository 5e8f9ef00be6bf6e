"""Optimizer groups as pure functions: weight decay, layer-wise rates, DCNv3's own rate.

The rules are those of the original's training code, but for one: there the factor for DCNv3's
offsets had no effect unless layer-wise decay was on as well. Here it always has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypedDict

from torch import nn

_STAGE = re.compile(r"(?:^|\.)levels\.(\d+)\.(.*)$")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_POST_NORM = re.compile(r"post_norms\.(\d+)\.")
_STEM = re.compile(r"(?:^|\.)patch_embed\.")

DCN_KEYWORDS = ("offset", "center_feature_scale_proj")
"""Parameters that ``dcn_lr_mul`` is for. The masks are not among them, as in the original."""


class ParamGroup(TypedDict):
    """One group of an optimizer.

    ``lr`` is the base rate times ``lr_scale`` already; a schedule that sets rates anew has to
    multiply its own by ``lr_scale``. ``names`` are those of ``params``.
    """

    params: list[nn.Parameter]
    names: list[str]
    lr: float
    lr_scale: float
    weight_decay: float


def has_weight_decay(name: str, ndim: int, *, skip: Iterable[str] = ()) -> bool:
    """Whether weight decay applies: not to vectors, biases and the names in ``skip``."""
    return ndim > 1 and not name.endswith(".bias") and name not in set(skip)


def layer_decay_scale(name: str, depths: Sequence[int], decay: float) -> float:
    """Return the learning-rate factor of a parameter under layer-wise decay.

    Blocks count back from the last one, which has factor 1; each block before it has ``decay``
    times the factor of its successor. What leads into a stage (the stem, a stage's ``norm`` and
    ``downsample``) has the factor of that stage's first block, everything else has 1.

    Args:
        name: the parameter's name, with or without a prefix such as ``backbone.``.
        depths: blocks of each stage.
        decay: factor a block, in (0, 1].

    Raises:
        ValueError: ``decay`` is out of range, or the parameter is of a stage or block that
            ``depths`` does not have.
    """
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"layer_decay_scale: expected 0 < decay <= 1, got {decay}")
    if _STEM.search(name):
        return _block_scale(0, 0, depths, decay)
    match = _STAGE.search(name)
    if match is None:
        return 1.0
    stage, rest = int(match[1]), match[2]
    if stage >= len(depths):
        raise ValueError(
            f"layer_decay_scale: expected a parameter of {len(depths)} stages, got {name}"
        )
    if block := _BLOCK.match(rest):
        if int(block[1]) >= depths[stage]:
            raise ValueError(
                f"layer_decay_scale: expected a parameter of the {depths[stage]} blocks of stage "
                f"{stage}, got {name}"
            )
        return _block_scale(stage, int(block[1]), depths, decay)
    leads_on = rest.startswith(("norm.", "downsample."))
    return (
        _block_scale(stage + 1, 0, depths, decay) if leads_on and stage + 1 < len(depths) else 1.0
    )


def _block_scale(stage: int, block: int, depths: Sequence[int], decay: float) -> float:
    blocks_behind = sum(depths[stage:]) - block - 1
    return decay**blocks_behind


def dense_layer_id(
    name: str, depths: Sequence[int], post_norm_block_ids: Sequence[Sequence[int]] = ()
) -> int:
    """Return the layer of a backbone's parameter, as the dense recipes count them.

    The stem is layer 0, the blocks are 1 to ``sum(depths)``, everything else is
    ``sum(depths) + 1``. What leads into a stage (``norm`` and ``downsample`` of the one before) has
    the layer of that stage's first block, and so has the last stage's own ``norm``. A norm of the
    trunk has the layer of the block that it stands behind. The connections between the two streams
    of CB-InternImage are last: they are new where the streams come from a released backbone.

    Args:
        name: the parameter's name, with any prefix.
        depths: blocks of each stage.
        post_norm_block_ids: for each stage, the blocks with a norm of the trunk behind them.

    Raises:
        ValueError: the parameter is of a stage or block that ``depths`` does not have.
    """
    if _STEM.search(name):
        return 0
    match = _STAGE.search(name)
    if match is None:
        return sum(depths) + 1
    stage, rest = int(match[1]), match[2]
    if stage >= len(depths):
        raise ValueError(
            f"dense_layer_id: expected a parameter of {len(depths)} stages, got {name}"
        )
    block = 0
    if found := _BLOCK.match(rest):
        block = int(found[1])
    elif found := _POST_NORM.match(rest):
        block = post_norm_block_ids[stage][int(found[1])]
    elif stage + 1 < len(depths):
        stage += 1
    if block >= depths[stage]:
        raise ValueError(
            f"dense_layer_id: expected a parameter of the {depths[stage]} blocks of stage {stage}, "
            f"got {name}"
        )
    return sum(depths[:stage]) + block + 1


def dcn_scale(name: str, dcn_lr_mul: float) -> float:
    """Return ``dcn_lr_mul`` for DCNv3's offsets and gates, 1 for everything else."""
    return dcn_lr_mul if any(keyword in name for keyword in DCN_KEYWORDS) else 1.0


def is_in_stages(name: str, stages: Iterable[int]) -> bool:
    """Whether a parameter belongs to one of these stages (0-3); the stem belongs to none."""
    match = _STAGE.search(name)
    return match is not None and int(match[1]) in set(stages)


def freeze_stages(model: nn.Module, stages: Sequence[int]) -> list[str]:
    """Switch off the gradients of whole stages; return the parameters' names.

    Raises:
        ValueError: a stage has no parameter in the model.
    """
    names = [name for name, _ in model.named_parameters()]
    for stage in stages:
        if not any(is_in_stages(name, [stage]) for name in names):
            raise ValueError(f"freeze_stages: expected stages of the model, got {stage}")
    frozen = [name for name in names if is_in_stages(name, stages)]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return frozen


def param_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    depths: Sequence[int],
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    dcn_lr_mul: float = 1.0,
    skip: Iterable[str] = (),
) -> list[ParamGroup]:
    """Sort parameters into as few optimizer groups as their rates and decays allow.

    Args:
        named_parameters: ``model.named_parameters()``; those without a gradient are left out.
        depths: blocks of each stage.
        lr: base learning rate.
        weight_decay: decay of the parameters that have any.
        layer_decay: factor a block, in (0, 1]; 1 is none.
        dcn_lr_mul: factor of DCNv3's offsets and gates, >= 0.
        skip: further names without weight decay.

    Returns:
        Groups for any ``torch.optim`` optimizer, in the order in which they first occur. Their
        ``lr`` holds ``lr`` multiplied by ``lr_scale``: do not multiply again.

    Raises:
        ValueError: a factor is out of range, no parameter is left, or one is of a stage or block
            that ``depths`` does not have.
    """
    if dcn_lr_mul < 0:
        raise ValueError(f"param_groups: expected dcn_lr_mul >= 0, got {dcn_lr_mul}")
    skip = frozenset(skip)
    groups: dict[tuple[float, float], ParamGroup] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        scale = layer_decay_scale(name, depths, layer_decay) * dcn_scale(name, dcn_lr_mul)
        decay = weight_decay if has_weight_decay(name, parameter.ndim, skip=skip) else 0.0
        group = groups.setdefault(
            (scale, decay),
            ParamGroup(params=[], names=[], lr=lr * scale, lr_scale=scale, weight_decay=decay),
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ValueError("param_groups: expected a parameter that requires a gradient, got none")
    return list(groups.values())
