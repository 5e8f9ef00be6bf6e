"""Checks of the constructor's arguments, and what follows from them by arithmetic alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

DropPathType = Literal["linear", "uniform"]


def check_int(function: str, name: str, value: Any, *, least: int) -> int:
    """Return a whole number.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is below ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{function}: expected {name} = a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{function}: expected {name} >= {least}, got {value}")
    return value


def check_ints(function: str, name: str, values: Any, *, least: int) -> tuple[int, ...]:
    """Return whole numbers as a tuple.

    Raises:
        TypeError: ``values`` is no iterable, or holds something else.
        ValueError: one of them is below ``least``.
    """
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise TypeError(f"{function}: expected {name} = whole numbers, got {values!r}")
    return tuple(
        check_int(function, f"{name}[{i}]", value, least=least) for i, value in enumerate(values)
    )


def check_number(name: str, value: Any) -> None:
    """Check an argument of ``InternImage`` that is a finite number.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is infinite or not a number.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"InternImage: expected {name} = a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"InternImage: expected {name} = a finite number, got {value}")


def check_rate(name: str, rate: float) -> None:
    """Check a probability of dropping something.

    Raises:
        TypeError: it is no number.
        ValueError: it is not in [0, 1).
    """
    check_number(name, rate)
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"InternImage: expected 0 <= {name} < 1, got {rate}")


def check_ratio(name: str, ratio: float, channels: int) -> None:
    """Check the ratio of a layer's width to ``channels``.

    Raises:
        TypeError: it is no number.
        ValueError: the layer would have no channel.
    """
    check_number(name, ratio)
    if channels * ratio < 1:
        raise ValueError(f"InternImage: expected {name} >= 1 / {channels} channels, got {ratio}")


def check_flags(**flags: bool) -> None:
    """Check arguments of ``InternImage`` that are either on or off.

    Raises:
        TypeError: one is no bool.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"InternImage: expected {name} = True or False, got {value!r}")


def check_stages(
    function: str, channels: int, depths: Sequence[int], groups: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Check width, depth and groups of all stages; return depths and groups as tuples.

    Raises:
        TypeError: a value is no whole number.
        ValueError: a value is out of range, or groups do not divide their channels.
    """
    if check_int(function, "channels", channels, least=2) % 2:
        raise ValueError(f"{function}: expected channels % 2 = 0, got {channels}")
    depths = check_ints(function, "depths", depths, least=1)
    groups = check_ints(function, "groups", groups, least=1)
    if not depths or len(depths) != len(groups):
        raise ValueError(
            f"{function}: expected depths and groups of one length >= 1, got {depths} and {groups}"
        )
    for i, group in enumerate(groups):
        if (channels * 2**i) % group:
            raise ValueError(
                f"{function}: expected groups[{i}] to divide {channels * 2**i} channels, "
                f"got {group}"
            )
    return depths, groups


def drop_path_rates(
    depths: Sequence[int], rate: float, drop_path_type: DropPathType
) -> list[list[float]]:
    """Return the stochastic-depth rate of every block, stage by stage.

    Raises:
        TypeError: the rate is no number.
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


def stage_indices(function: str, indices: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    """Return the stages wanted; None is all.

    Raises:
        TypeError: an index is no whole number.
        ValueError: the indices are none of the stages, or do not ascend.
    """
    if indices is None:
        return tuple(range(num_stages))
    chosen = check_ints(function, "indices", indices, least=0)
    if not chosen or chosen[-1] >= num_stages or sorted(set(chosen)) != list(chosen):
        raise ValueError(
            f"{function}: expected ascending stage indices in 0..{num_stages - 1}, got {chosen}"
        )
    return chosen


def trunk_norm_block_ids(
    depths: tuple[int, ...], enabled: bool, block_ids: Sequence[int] | None
) -> tuple[int, ...]:
    """Return the blocks of the third stage that a norm of the trunk follows.

    Raises:
        TypeError: an index is no whole number.
        ValueError: such norms are wanted, and the blocks do not exist or occur twice.
    """
    name = "level2_post_norm_block_ids"
    chosen = check_ints("InternImage", name, block_ids or (), least=0)
    if not enabled:
        if chosen:
            warnings.warn(
                f"InternImage: {name} has no effect without level2_post_norm", stacklevel=3
            )
        return ()
    depth = depths[2] if len(depths) > 2 else 0
    if not chosen or max(chosen) >= depth or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"InternImage: expected {name} = different indices of the third stage's {depth} "
            f"blocks, got {block_ids}"
        )
    return chosen
