"""Checks of the constructor's arguments, and what follows from them by arithmetic alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence


def drop_path_rates(depths: Sequence[int], rate: float, drop_path_type: str) -> list[list[float]]:
    """Return the stochastic-depth rate of every block, stage by stage.

    Raises:
        ValueError: the rate is not in [0, 1), or the type is neither ``"linear"`` nor
            ``"uniform"``.
    """
    check_rate("drop_path_rate", rate)
    total = sum(depths)
    if drop_path_type == "linear":
        # Plain floats: a tensor would follow a `meta` default device and hold no values there.
        flat = [rate * i / max(total - 1, 1) for i in range(total)]
    elif drop_path_type == "uniform":
        flat = [rate] * total
    else:
        raise ValueError(
            f"InternImage: expected drop_path_type = 'linear' or 'uniform', got {drop_path_type!r}"
        )
    starts = [sum(depths[:i]) for i in range(len(depths))]
    return [flat[start : start + depth] for start, depth in zip(starts, depths, strict=True)]


def check_rate(name: str, rate: float) -> None:
    """Check a probability of dropping something.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"InternImage: expected 0 <= {name} < 1, got {rate}")


def check_architecture(
    channels: int,
    depths: tuple[int, ...],
    groups: tuple[int, ...],
    num_classes: int,
    in_chans: int,
    use_clip_projector: bool,
) -> None:
    """Check the sizes of a model.

    Raises:
        ValueError: a size is out of range, or groups do not divide their channels.
    """
    if channels < 2 or channels % 2:
        raise ValueError(f"InternImage: expected channels even and >= 2, got {channels}")
    if not depths or len(depths) != len(groups) or min(depths) < 1 or min(groups) < 1:
        raise ValueError(
            f"InternImage: expected depths and groups of one length with values >= 1, got {depths} "
            f"and {groups}"
        )
    for i, group in enumerate(groups):
        if (channels * 2**i) % group:
            raise ValueError(
                f"InternImage: expected groups[{i}] to divide {channels * 2**i} channels, got "
                f"{group}"
            )
    if num_classes < 0 or in_chans < 1:
        raise ValueError(
            f"InternImage: expected num_classes >= 0 and in_chans >= 1, got {num_classes} and "
            f"{in_chans}"
        )
    if use_clip_projector and len(depths) < 2:
        raise ValueError(
            f"InternImage: expected at least two stages for use_clip_projector, got {len(depths)}"
        )


def trunk_norm_block_ids(
    depths: tuple[int, ...], enabled: bool, block_ids: Sequence[int] | None
) -> tuple[int, ...]:
    """Return the blocks of the third stage that a norm of the trunk follows.

    Raises:
        ValueError: such norms are wanted, and the blocks do not exist.
    """
    if not enabled:
        if block_ids:
            warnings.warn(
                "InternImage: level2_post_norm_block_ids has no effect without level2_post_norm",
                stacklevel=4,
            )
        return ()
    if len(depths) < 3 or not block_ids or any(not 0 <= i < depths[2] for i in block_ids):
        depth = depths[2] if len(depths) > 2 else 0
        raise ValueError(
            "InternImage: expected level2_post_norm_block_ids as indices of the third stage's "
            f"{depth} blocks, got {block_ids}"
        )
    return tuple(block_ids)
