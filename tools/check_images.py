"""Decodes all images of a data set before a training does, and lists the files that are broken.

python tools/check_images.py --dataset folder --data-path DIR

One line a broken file: its path, a tab, what is wrong. The exit code is 1 if there is one.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.config import get_default_config
from classification.data import DATASETS, build_sets
from classification.data.decode import to_pixels
from classification.data.source import Source
from internimage.threads import map_in_order
from tools.command_line import progress, run_tool

NAME = "check_images"
FOUND_BROKEN = 1


def broken_files(source: Source, *, workers: int) -> Iterator[tuple[str, str] | None]:
    """Yields for each image, in order, its name and what is wrong with it, or None.

    Args:
        source: The images.
        workers: Threads; the decoders let each other work.
    """

    def check(index: int) -> tuple[str, str] | None:
        return _check(source, index)

    return map_in_order(check, range(len(source)), workers=workers)


def _check(source: Source, index: int) -> tuple[str, str] | None:
    name = source.name(index)
    try:
        to_pixels(source.read(index), name=name)
    except (OSError, ValueError) as error:
        return name, " ".join(str(error).split())
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Lists the broken images of a set.")
    parser.add_argument("--dataset", choices=sorted(DATASETS), default="folder", help="its name")
    parser.add_argument("--data-path", default="", metavar="DIR", help="where it is")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="threads")
    args = parser.parse_args(arguments)
    num_broken = 0

    def tool() -> None:
        nonlocal num_broken
        if args.workers < 1:
            raise ValueError(f"{NAME}: expected --workers >= 1, got {args.workers}")
        config = get_default_config()
        config.DATA.DATASET, config.DATA.DATA_PATH = args.dataset, args.data_path
        sets = build_sets(config)
        halves = (("train", sets.train), ("test", sets.test))
        for half, source in halves:
            with progress(f"{half} images", len(source)) as advance:
                for broken in broken_files(source, workers=args.workers):
                    advance(1)
                    if broken is not None:
                        num_broken += 1
                        print("\t".join(broken), flush=True)
        counts = " and ".join(f"{len(source):,} {half}" for half, source in halves)
        print(f"{NAME}: {num_broken} broken of {counts} images", file=sys.stderr)

    exit_code = run_tool(NAME, tool)
    return exit_code or (FOUND_BROKEN if num_broken else 0)


if __name__ == "__main__":
    sys.exit(main())
