"""What models say about an image, as plain values, and how that is printed. PyTorch is not needed.

Shape legend: H W image size in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

MAX_INDEXED = 256
"""Classes that a picture of one byte a pixel can tell apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """One guess.

    Args:
        index: the class, from 0.
        name: its name, None where names are unknown.
        score: probability, 0-1.
    """

    index: int
    name: str | None
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection:
    """One object found.

    Args:
        bbox: left, top, right, bottom in pixels of the upright image.
        label: the class, from 0.
        class_name: its name, None where names are unknown.
        score: 0-1.
        mask: COCO's compressed run-length code, ``{"size": [H, W], "counts": text}``; None from a
            detector without masks.
    """

    bbox: tuple[float, float, float, float]
    label: int
    class_name: str | None
    score: float
    mask: dict[str, Any] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassShare:
    """How much of an image is of one class.

    Args:
        label: the class, from 0.
        class_name: its name, None where names are unknown.
        pixels: how many.
        share: of all pixels, 0-1.
    """

    label: int
    class_name: str | None
    pixels: int
    share: float


def class_shares(pixels: Mapping[int, int], class_names: Sequence[str]) -> list[ClassShare]:
    """Return the classes of which there are pixels, the largest first.

    Args:
        pixels: how many, by label.
        class_names: of the first classes, or none.
    """
    total = sum(pixels.values())
    found = [
        ClassShare(
            label=label,
            class_name=class_names[label] if label < len(class_names) else None,
            pixels=count,
            share=count / total,
        )
        for label, count in pixels.items()
        if count
    ]
    # By label where sizes are equal: the same picture gives the same text.
    return sorted(found, key=lambda one: (-one.pixels, one.label))


def label_image(label_map: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> Image.Image:
    """Return a label map as an image whose pixel values are the labels.

    Up to 256 classes it has one byte a pixel and the palette's colours, and otherwise 16 bits.

    Args:
        label_map: (H, W), uint8, or uint16 of more classes.
        palette: red, green, blue of each class, 0-255.
    """
    # By the classes that may be, not by those that are: all pictures of a model are of one kind.
    if len(palette) > MAX_INDEXED:
        return Image.fromarray(label_map)
    image = Image.fromarray(label_map, mode="P")
    # All 256: with fewer colours Pillow would write fewer bits a pixel.
    colours = [*palette, *[(0, 0, 0)] * (MAX_INDEXED - len(palette))]
    image.putpalette([value for colour in colours for value in colour])
    return image


def print_labels(image: str, labels: Sequence[Label]) -> None:
    """Print the guesses about an image as a table."""
    print(f"\n{image}\n  rank    score  class  label")
    for rank, label in enumerate(labels, start=1):
        print(f"  {rank:>4}  {label.score:>7.4f}  {label.index:>5}  {label.name or '-'}")


def print_detections(answer: Mapping[str, Any]) -> None:
    """Print the detections in an image, or how many a video has, as the JSON file holds them."""
    if "video" in answer:
        print(
            f"\n{answer['video']}: {answer['frames']} frames, {answer['detections']} detections"
            f"\n  {answer['picture']}\n  {answer['answers']}"
        )
        return
    print(f"\n{answer['image']}{_files(answer, 'picture')}")
    print(f"  {'score':>6}  {'left':>7} {'top':>7} {'right':>7} {'bottom':>7}  class")
    for found in answer["detections"]:
        box = " ".join(f"{value:>7.1f}" for value in found["bbox"])
        print(f"  {found['score']:>6.3f}  {box}  {found['class_name'] or found['label']}")


def print_classes(answer: Mapping[str, Any]) -> None:
    """Print the classes in an image or a video, as the JSON file holds them."""
    if "video" in answer:
        print(f"\n{answer['video']}: {answer['frames']} frames")
        print(f"  {answer['picture']}\n  {answer['answers']}")
    else:
        print(f"\n{answer['image']}{_files(answer, 'picture', 'label_map')}")
    print(f"  {'share':>7}  class")
    for found in answer["classes"]:
        print(f"  {100 * found['share']:>5.1f} %  {found['class_name'] or found['label']}")


def _files(answer: Mapping[str, Any], *keys: str) -> str:
    """Return " -> " and the files that were written, nothing where none was."""
    files = [answer[key] for key in keys if key in answer]
    return f" -> {', '.join(files)}" if files else ""
