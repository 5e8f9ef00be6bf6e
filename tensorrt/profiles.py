"""Which sizes an engine serves: its optimization profile.

An engine is built for a range of each open axis, and tuned for one size within it. On the command
line: ``input=1x3x320x320:1x3x800x1344:4x3x1344x1344``, smallest, usual and largest size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]

OPEN = -1
"""The size of an open axis in a network's shape."""

# 320 as in the original's deploy config, ..._dynamic-320x320-1344x1344.py.
SMALLEST_SIDE = 320
"""Of a detector's input whose size is open, pixels, where the command line does not say."""

LARGEST_BATCH = 8
"""Where the number of images is open and the command line does not say."""


@dataclass(frozen=True)
class Profile:
    """The sizes of one input.

    Args:
        name: of the input.
        smallest: size of every axis, at least.
        usual: what the engine is tuned for.
        largest: at most.

    Raises:
        ValueError: the three do not have as many axes or are not in order.
    """

    name: str
    smallest: Shape
    usual: Shape
    largest: Shape

    def __post_init__(self) -> None:
        if not len(self.smallest) == len(self.usual) == len(self.largest):
            raise ValueError(f"expected three sizes of as many axes, got {self}")
        for low, middle, high in zip(self.smallest, self.usual, self.largest, strict=True):
            if not 1 <= low <= middle <= high:
                raise ValueError(f"expected 1 <= smallest <= usual <= largest, got {self}")

    def __str__(self) -> str:
        sizes = ("x".join(map(str, shape)) for shape in (self.smallest, self.usual, self.largest))
        return f"{self.name}={':'.join(sizes)}"

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether an input may have this size."""
        return len(shape) == len(self.usual) and all(
            low <= size <= high
            for low, size, high in zip(self.smallest, shape, self.largest, strict=True)
        )


def read_profile(text: str) -> Profile:
    """Read ``NAME=MIN:OPT:MAX`` or ``NAME=SIZE``.

    Raises:
        ValueError: it has another form.
    """
    # At the last `=`: ONNX allows one within a name.
    name, _, sizes = text.rpartition("=")
    shapes = [part.split("x") for part in sizes.split(":")]
    numbers = [word for shape in shapes for word in shape]
    if not name or len(shapes) not in (1, 3) or not all(re.fullmatch(r"\d+", n) for n in numbers):
        raise ValueError(
            "expected --profile NAME=MIN:OPT:MAX with sizes as 1x3x224x224, or NAME=SIZE, got "
            f"{text!r}"
        )
    # A size alone is all three.
    smallest, usual, largest = (tuple(map(int, shape)) for shape in (shapes * 3)[:3])
    return Profile(name, smallest, usual, largest)


def choose_profiles(
    given: Sequence[Profile], inputs: Mapping[str, Shape], metadata: Any | None
) -> list[Profile]:
    """Return a profile for every input with open axes.

    Args:
        given: from the command line.
        inputs: the shape of each input of the network, :data:`OPEN` for an open axis.
        metadata: ``internimage.runtime``'s of the model, None for a model of others.

    Raises:
        ValueError: a profile is for no input or does not fit it, an open input has none, or the
            model's own test size is outside.
    """
    by_name = {profile.name: profile for profile in given}
    if len(by_name) < len(given):
        raise ValueError(f"expected one --profile an input, got {', '.join(map(str, given))}")
    for profile in given:
        if profile.name not in inputs:
            raise ValueError(
                f"expected --profile of an input ({', '.join(inputs)}), got {profile.name!r}"
            )
        _check_fit(profile, inputs[profile.name])
    tests = sizes_of_tests(metadata) if metadata is not None else []
    chosen = []
    for name, shape in inputs.items():
        if OPEN in shape:
            profile = by_name.get(name) or _default(name, shape, inputs, by_name, tests)
            _check_fit(profile, shape)
            chosen.append(profile)
            if name == next(iter(inputs)):  # the images
                _check_tests(profile, tests)
    return chosen


def sizes_of_tests(metadata: Any) -> list[tuple[int, int]]:
    """Return the input sizes (height, width) that the model's tests have, the usual one first.

    Empty where images keep their own size. A detector sees landscape and portrait pictures.
    """
    if metadata.window is not None:  # the model sees windows, however large the image
        height, width = metadata.window["size"]
        return [(height, width)]
    resize = metadata.resize
    divisor = resize.get("pad_divisor") or resize.get("multiple_of") or 1
    padded = resize.get("pad_to") or (None, None)
    if resize["mode"] != "keep_ratio":
        sizes = [tuple(resize["size"])]
    elif resize["scale"] or None not in padded:
        # Without a scale both sides are those of `pad_to`: zeros give way to them below.
        long, short = sorted(resize["scale"] or (0, 0))[::-1]
        sizes = [(short, long), (long, short)]
    else:
        return []
    found = [
        tuple(
            fixed or -(-side // divisor) * divisor for fixed, side in zip(padded, size, strict=True)
        )
        for size in sizes
    ]
    return list(dict.fromkeys(found))  # a square has one orientation


def _check_fit(profile: Profile, shape: Shape) -> None:
    """Raise ValueError where a profile has other axes, or another size of a fixed one."""
    wanted = "x".join("?" if size == OPEN else str(size) for size in shape)
    fits = len(profile.usual) == len(shape) and all(
        size in (OPEN, low) and size in (OPEN, high)
        for size, low, high in zip(shape, profile.smallest, profile.largest, strict=True)
    )
    if not fits:
        raise ValueError(f"expected --profile {profile.name}= sizes {wanted}, got {profile}")


def _check_tests(profile: Profile, tests: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError where none of the test sizes (height, width) is within the profile."""
    batch, channels = profile.usual[:2]
    if tests and not any(profile.admits((batch, channels, *size)) for size in tests):
        height, width = tests[0]
        raise ValueError(
            f"expected a profile that includes the model's test size, {height} x {width}, got "
            f"{profile}"
        )


def _default(
    name: str,
    shape: Shape,
    inputs: Mapping[str, Shape],
    given: Mapping[str, Profile],
    tests: Sequence[tuple[int, int]],
) -> Profile:
    """What an input gets for which the command line holds no profile."""
    image = next(iter(inputs))
    if name != image:
        batches = given.get(image)
        if shape[0] == OPEN and OPEN not in shape[1:]:  # as many rows as there are images
            low, usual, high = (
                (batches.smallest[0], batches.usual[0], batches.largest[0])
                if batches
                else (1, 1, LARGEST_BATCH)
            )
            rest = shape[1:]
            return Profile(name, (low, *rest), (usual, *rest), (high, *rest))
    elif len(shape) == 4 and (tests or OPEN not in shape[2:]):
        return _image_default(name, shape, tests)
    raise ValueError(
        f"expected --profile {name}=MIN:OPT:MAX, since the input has open axes "
        f"({'x'.join('?' if size == OPEN else str(size) for size in shape)}), got none"
    )


def _image_default(name: str, shape: Shape, tests: Sequence[tuple[int, int]]) -> Profile:
    """The test size alone, or from small pictures to both orientations of the test size."""
    batch, channels, height, width = shape
    batches = (1, 1, LARGEST_BATCH) if batch == OPEN else (batch,) * 3
    both = len(tests) > 1
    long = max(tests[0]) if tests else 0

    def sides(size: int, usual: int) -> tuple[int, int, int]:
        if size != OPEN:
            return size, size, size
        return (min(SMALLEST_SIDE, *tests[0]), usual, long) if both else (usual, usual, usual)

    heights = sides(height, tests[0][0] if tests else 0)
    widths = sides(width, tests[0][1] if tests else 0)
    smallest, usual, largest = ((batches[k], channels, heights[k], widths[k]) for k in range(3))
    return Profile(name, smallest, usual, largest)
