"""What is wrong with images and their semantic masks, found before a training does.

A mask is a picture of one channel as large as its image; each pixel is the number of a class, 0 for
the first of them, or the label to ignore. mmseg reads the low 8 bits of whatever it finds, and
takes an image whose name ends otherwise for none.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from internimage.integrations.openmmlab.data.faults import Fault, Findings, Kinds, stopping
from internimage.integrations.openmmlab.data.image_files import IMAGE_KINDS, check_image
from internimage.integrations.openmmlab.data.label_counts import LabelCounts
from internimage.integrations.openmmlab.data.mask_file import (
    IGNORED,
    NUM_LABELS,
    MaskFile,
    read_mask,
)
from internimage.integrations.openmmlab.data.mask_pairs import Pair, pair_files
from internimage.threads import map_in_order

MASK_KINDS: Kinds = {
    # the folders
    "no images": ("stops", "no file has the images' suffix: there is nothing to learn from"),
    "missing image": IMAGE_KINDS["missing image"],
    "missing mask": ("stops", "an image without a mask"),
    # the files
    "unreadable image": IMAGE_KINDS["unreadable image"],
    "unreadable mask": ("stops", "no image, or truncated"),
    "wrong size": ("stops", "the mask has another width or height than its image"),
    "colour mask": ("stops", "colours in place of labels: tools/colours_to_masks.py converts them"),
    "float mask": ("stops", "numbers with a fraction, which would be cut off"),
    "lossy mask": ("stops", "a JPEG blurs labels: save masks as PNG"),
    # the labels
    "label over 255": ("stops", "masks are read with 8 bits: 256 would become 0"),
    "unknown label": ("stops", "a label that no class has"),
    "black and white": (
        "stops",
        "the masks hold 0 and 255 alone, and 255 is ignored: tools/colours_to_masks.py converts "
        "them",
    ),
    "nothing labelled": ("stops", "every pixel of every mask is ignored"),
    # what is left out
    "other suffix": ("dropped", "an image whose name does not end in the images' suffix"),
    "mask without image": ("dropped", "a mask that belongs to no image"),
    "ignored mask": ("dropped", "every pixel of the mask is ignored: nothing is learned of it"),
    # worth knowing
    "much ignored": ("noted", "more than half of all pixels are ignored"),
    "class without pixels": ("noted", "there is nothing to learn of it"),
    "large image": IMAGE_KINDS["large image"],
}
"""Each kind of fault: its effect and what it is, in the order of reports."""

WORKERS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskReport:
    """What a folder of images and one of masks hold.

    Args:
        num_images: images that are read.
        num_read: masks whose labels were counted.
        pixels: of each class, by name, in the masks that were read.
        masks_with: how many of them have the class.
        ignored: pixels of the label to ignore.
        faults: what was found, one entry a kind.
    """

    num_images: int
    num_read: int
    pixels: dict[str, int]
    masks_with: dict[str, int]
    ignored: int
    faults: tuple[Fault, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Each class's share of the pixels that have a class, 0-1."""
        total = max(sum(self.pixels.values()), 1)
        return {name: count / total for name, count in self.pixels.items()}

    @property
    def stopping(self) -> tuple[Fault, ...]:
        """Those that end a training or an evaluation, or spoil it."""
        return stopping(self.faults)


def require_masks(
    images: Path,
    masks: Path,
    *,
    classes: Sequence[str],
    img_suffix: str = ".jpg",
    seg_map_suffix: str = ".png",
    reduce_zero_label: bool = False,
    ignore_index: int = IGNORED,
    names: Sequence[str] | None = None,
    limit: int | None = None,
) -> MaskReport:
    """Check images and masks, and raise if a training with them would end, or learn nonsense.

    The arguments are those of :func:`check_masks`.

    Returns:
        The report; its faults do not stop anything.

    Raises:
        ValueError: there is a fault that stops; all such are named.
    """
    report = check_masks(
        images,
        masks,
        classes=classes,
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        ignore_index=ignore_index,
        names=names,
        limit=limit,
    )
    if report.stopping:
        faults = ", ".join(fault.describe() for fault in report.stopping)
        raise ValueError(
            f"require_masks: expected masks to train on, got {masks} for {images} with {faults}; "
            "python tools/check_masks.py lists all"
        )
    return report


def check_masks(
    images: Path,
    masks: Path,
    *,
    classes: Sequence[str],
    img_suffix: str = ".jpg",
    seg_map_suffix: str = ".png",
    reduce_zero_label: bool = False,
    ignore_index: int = IGNORED,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    decode: bool = False,
    workers: int = WORKERS,
    advance: Callable[[float], None] = lambda amount: None,
) -> MaskReport:
    """Check images and masks.

    Args:
        images: the folder of images; its sub-folders count.
        masks: the folder of masks, with the same sub-folders.
        classes: their names: label 0 is the first.
        img_suffix: how an image's name ends.
        seg_map_suffix: what a mask's name has in its place.
        reduce_zero_label: label 0 is no class but ignored, and 1 is the first class.
        ignore_index: the label that is not learned.
        names: the images to take, without suffix; None takes all of the folder.
        limit: how many pairs to look into, the first ones; None looks into all. Names are compared
            in full, and where the first ones are all black and white, others are looked for.
        decode: whether to decode the images as well: finds the truncated ones, takes longer.
            Otherwise their headers are read.
        workers: threads; the decoders let each other work.
        advance: called with the number of pairs done since the last call.

    Raises:
        ValueError: a folder is missing, a suffix is empty, or a number is out of range.
    """
    for what, folder in (("images", images), ("masks", masks)):
        if not folder.is_dir():
            raise ValueError(f"check_masks: expected a folder of {what}, got no folder {folder}")
    for name, suffix in (("img_suffix", img_suffix), ("seg_map_suffix", seg_map_suffix)):
        if not suffix:
            raise ValueError(f"check_masks: expected {name} = such as '.png', got ''")
    if not 0 < len(classes) < NUM_LABELS:
        raise ValueError(f"check_masks: expected 1 to 255 classes, got {len(classes)}")
    if limit is not None and limit < 1:
        raise ValueError(f"check_masks: expected limit >= 1, got {limit}")
    found = Findings(MASK_KINDS)
    pairs = pair_files(
        images,
        masks,
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        names=names,
        found=found,
    )
    if not pairs:
        found.add("no images", f"{images}/*{img_suffix}")
    counted = LabelCounts(classes, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
    whole = [pair for pair in pairs if pair.is_whole]  # the others are faults already
    look = functools.partial(_look, decode=decode)
    for pair, size, mask, faults in map_in_order(
        look, itertools.islice(whole, limit), workers=workers
    ):
        for kind, example in faults:
            found.add(kind, example)
        # Here and not in the threads: counts and findings belong to this thread alone.
        if mask is not None:
            if size is not None and size != mask.size:
                found.add("wrong size", f"{pair.mask} is {_by(mask.size)}, its image {_by(size)}")
            counted.add(pair.mask, mask, found)
        advance(1)
    is_complete = limit is None or limit >= len(whole)
    # The one fault of a set as a whole that is worth reading on for: 0 and 255 as two classes would
    # train, on one class.
    if not is_complete and counted.is_black_and_white:
        _look_for_others(whole[limit:], counted, workers=workers)
    counted.judge(found, is_complete=is_complete)
    return MaskReport(
        num_images=len(pairs),
        num_read=counted.num_read,
        pixels=dict(zip(classes, counted.pixels.tolist(), strict=True)),
        masks_with=dict(zip(classes, counted.masks_with.tolist(), strict=True)),
        ignored=counted.ignored,
        faults=found.faults(),
    )


def _look(
    pair: Pair, *, decode: bool
) -> tuple[Pair, tuple[int, int] | None, MaskFile | None, list[tuple[str, str]]]:
    """Return what a thread finds out about a pair: the image's size, the mask, their faults."""
    size, kind, example = check_image(pair.image, decode=decode)
    faults = [(kind, example)] if kind else []
    try:
        mask = read_mask(pair.mask)
    except (OSError, ValueError) as error:
        return pair, size, None, [*faults, ("unreadable mask", f"{pair.mask}: {error}")]
    faults += [(kind, f"{pair.mask}{what}") for kind, what in mask.faults]
    return pair, size, mask, faults


def _look_for_others(pairs: Sequence[Pair], counted: LabelCounts, *, workers: int) -> None:
    """Read masks until one has another label than black and white: the first few may be alike."""

    def read(pair: Pair) -> MaskFile | None:
        try:
            return read_mask(pair.mask)
        except (OSError, ValueError):
            return None  # not among those to look into

    for mask in map_in_order(read, pairs, workers=workers):
        if mask is not None:
            counted.see(mask)
        if not counted.is_black_and_white:
            return


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
