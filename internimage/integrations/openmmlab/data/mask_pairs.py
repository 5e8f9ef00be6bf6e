"""Which mask belongs to which image, by their names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from internimage.integrations.openmmlab.data.faults import Findings

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Args:
        image: the file.
        mask: the file that its name asks for.
        is_whole: whether both are there.
    """

    image: Path
    mask: Path
    is_whole: bool


def pair_files(
    images: Path,
    masks: Path,
    *,
    img_suffix: str,
    seg_map_suffix: str,
    names: Sequence[str] | None,
    found: Findings,
) -> list[Pair]:
    """Pair images and masks as mmseg does, by their paths below the folders without the suffixes.

    Args:
        images: the folder of images.
        masks: the folder of masks.
        img_suffix: how an image's name ends.
        seg_map_suffix: what a mask's name has in its place.
        names: the images to take, without suffix; None takes all of the folder.
        found: takes images and masks that lack their partner, and images of another suffix.

    Returns:
        A pair for each image that is read, in their order.
    """
    # Listings, as mmseg makes them: no question to the disk for each file.
    held = files_below(images)
    there = files_below(masks)
    listed = set(held)
    wanted = [name + img_suffix for name in names] if names is not None else held
    pairs = []
    for name in wanted:
        if not name.endswith(img_suffix):
            continue
        mask = name[: -len(img_suffix)] + seg_map_suffix
        pair = Pair(images / name, masks / mask, name in listed and mask in there)
        if name not in listed:
            found.add("missing image", str(pair.image))
        elif mask not in there:
            found.add("missing mask", f"{pair.image} needs {pair.mask}")
        pairs.append(pair)
    if names is None:
        _note_others(images, masks, held, there, (img_suffix, seg_map_suffix), found)
    return pairs


def files_below(folder: Path) -> dict[str, None]:
    """Return the paths of the files below a folder, relative to it, sorted.

    They are those that mmseg reads: it passes over hidden files and goes into hidden folders.
    """
    names = []
    for root, _, files in os.walk(folder, followlinks=True):
        inner = Path(root).relative_to(folder)
        names += [(inner / name).as_posix() for name in files if not name.startswith(".")]
    return dict.fromkeys(sorted(names))


def _note_others(
    images: Path,
    masks: Path,
    held: dict[str, None],
    there: dict[str, None],
    suffixes: tuple[str, str],
    found: Findings,
) -> None:
    """Note the images that are not read for their names, and the masks of no image."""
    img_suffix, seg_map_suffix = suffixes
    # Images and masks in one folder: a.jpg beside a.png, or a.png beside a_mask.png.
    shared = os.path.samefile(images, masks)
    for name in held:
        is_image = Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.endswith(img_suffix)
        if is_image and not (shared and name.endswith(seg_map_suffix)):
            found.add("other suffix", str(images / name))
    for name in there:
        if not name.endswith(seg_map_suffix) or (shared and name.endswith(img_suffix)):
            continue
        if name[: -len(seg_map_suffix)] + img_suffix not in held:
            found.add("mask without image", str(masks / name))
