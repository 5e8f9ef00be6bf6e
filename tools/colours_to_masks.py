"""Converts masks that show each class by a colour to masks that hold its number.

python tools/colours_to_masks.py masks --colours colours.txt --out labels

The file has a line a class, in the order of the numbers: its name, then ``#804080`` or three
numbers 0-255 (spaces or commas between them). A name may have several colours; ``ignore`` is what
is not learned, 255. Grey and black-and-white masks count as colours: ``#ffffff`` is white. A colour
that is not in the list is a mistake, with the place of its first pixel.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.coco_files import whole_folder
from tools.command_line import progress, run_tool
from tools.input_files import Mistakes, images_by_stem
from tools.mask_files import IGNORED, MAX_CLASSES, MaskWriter, mask_names, top_names

NAME = "colours_to_masks"
IGNORE = "ignore"
UNKNOWN = 256
MAX_UNKNOWN = 4  # colours named of one mask
PLAIN_MODES = ("1", "L", "P", "RGB")
CLEAR_MODES = ("RGBA", "LA", "PA")

Colour = tuple[int, int, int]
_HEX = re.compile(r"#?([0-9a-f]{6})", re.IGNORECASE)


def read_colours(words: Sequence[str]) -> tuple[list[str], dict[Colour, int]]:
    """Reads which colour is which class.

    Args:
        words: ``NAME=#804080`` each, or one file with a line a class.

    Returns:
        The classes, and the label of each colour.

    Raises:
        ValueError: A line is no name and colour, or a colour is there twice.
        OSError: The file cannot be read.
    """
    if len(words) == 1 and "=" not in words[0]:
        lines = Path(words[0]).read_text(encoding="utf-8-sig").splitlines()
        entries = [(f"{words[0]}:{number}", line) for number, line in enumerate(lines, 1)]
    else:
        entries = [("--colours", word.replace("=", " ")) for word in words]
    names: list[str] = []
    labels: dict[Colour, int] = {}
    for index, (where, line) in enumerate(entries):
        parts = line.replace(",", " ").split()
        if not parts or (index == 0 and parts[-3:] == ["r", "g", "b"]):  # a table's head
            continue
        name, colour = _read_entry(parts, where)
        if colour in labels:
            raise ValueError(f"{where}: expected colours that differ, got {_hex(colour)} twice")
        if name != IGNORE and name not in names:
            names.append(name)
        labels[colour] = IGNORED if name == IGNORE else names.index(name)
    if not 0 < len(names) <= MAX_CLASSES:
        raise ValueError(f"{NAME}: expected --colours of 1 to 255 classes, got {len(names)}")
    return names, labels


def _read_entry(parts: Sequence[str], where: str) -> tuple[str, Colour]:
    code = _HEX.fullmatch(parts[-1])
    if len(parts) > 3 and all(part.isdecimal() and int(part) < 256 for part in parts[-3:]):
        return " ".join(parts[:-3]), (int(parts[-3]), int(parts[-2]), int(parts[-1]))
    if len(parts) > 1 and code:
        value = int(code[1], 16)
        return " ".join(parts[:-1]), (value >> 16, value >> 8 & 255, value & 255)
    raise ValueError(
        f"{where}: expected a name and a colour such as #804080 or 128 64 128, got "
        f"{' '.join(parts)!r}"
    )


class ColourTable:
    """Turns colours into labels.

    Args:
        labels: The label of each colour, 0-255.
    """

    def __init__(self, labels: dict[Colour, int]) -> None:
        self._table = np.full(1 << 24, UNKNOWN, dtype=np.uint16)
        for (red, green, blue), label in labels.items():
            self._table[red << 16 | green << 8 | blue] = label

    def convert(self, path: Path) -> np.ndarray:
        """Returns the labels (H, W), uint8, of a mask's file.

        Raises:
            ValueError: It is no image, has a colour that is not in the table, or none at all.
            OSError: It cannot be read.
        """
        pixels = _read_pixels(path).astype(np.uint32)
        codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        labels = self._table[codes]
        if labels.max() == UNKNOWN:
            raise ValueError(f"expected colours of the list, got {_describe(codes, labels)}")
        return labels.astype(np.uint8)


def _read_pixels(path: Path) -> np.ndarray:
    """Returns a mask's colours, (H, W, 3), uint8."""
    try:
        with Image.open(path) as file:
            file.load()
            mode = file.mode
            colours = file.convert("RGBA" if mode in CLEAR_MODES else "RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected an image, got {error}") from error
    if mode not in PLAIN_MODES + CLEAR_MODES:
        raise ValueError(f"expected a mask of 8-bit colours, got one of Pillow's mode {mode}")
    pixels = np.asarray(colours)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        y, x = np.argwhere(pixels[..., 3] < 255)[0]
        raise ValueError(f"expected opaque colours, got a transparent pixel at x={x}, y={y}")
    return pixels[..., :3]


def _describe(codes: np.ndarray, labels: np.ndarray) -> str:
    """Say which unknown colours are in a mask, where first and how often, the commonest first."""
    unknown, counts = np.unique(codes[labels == UNKNOWN], return_counts=True)
    said = []
    for index in np.argsort(-counts, kind="stable")[:MAX_UNKNOWN]:
        y, x = np.argwhere(codes == unknown[index])[0]
        code = int(unknown[index])
        said.append(f"#{code:06x} ({counts[index]:,} pixels, the first at x={x}, y={y})")
    rest = len(unknown) - len(said)
    return ", ".join(said) + (f" and {rest:,} colours more" if rest else "")


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Converts colours to labels.")
    parser.add_argument("masks", type=Path, metavar="DIR", help="masks in colours; sub-folders too")
    parser.add_argument(
        "--colours", nargs="+", required=True, metavar="NAME=#RRGGBB", help="or a file of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that are there")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    names, labels = read_colours(args.colours)
    if not args.masks.is_dir():
        raise ValueError(f"{NAME}: expected a folder of masks, got no folder {args.masks}")
    if args.out.resolve() == args.masks.resolve():
        raise ValueError(f"{NAME}: expected --out another folder than the masks', got {args.out}")
    found = list(images_by_stem(args.masks).values())
    if not found:
        raise ValueError(f"{NAME}: expected masks in {args.masks}, got none")
    table = ColourTable(labels)
    mistakes = Mistakes(NAME)
    colour_of: dict[int, Colour] = {}
    for colour, label in labels.items():
        colour_of.setdefault(label, colour)  # of several the first
    palette = [colour_of[label] for label in range(len(names))]
    targets = list(mask_names(found))
    with whole_folder(
        args.out, tool=NAME, overwrite=args.overwrite, content=top_names(targets)
    ) as folder:
        writer = MaskWriter(folder, names, palette)
        with progress("masks", len(found)) as advance:
            for name, target in zip(found, targets, strict=True):
                advance(1)
                try:
                    writer.write(target, table.convert(args.masks / name))
                except ValueError as error:
                    mistakes.add(args.masks / name, str(error))
        mistakes.stop_if_any()
    print(writer.summary(args.out))


if __name__ == "__main__":
    sys.exit(main())
