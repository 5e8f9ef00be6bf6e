"""Collects the frames of OpenLane-V2, subset A, into one pickle a split, which training reads.

python tools/make_openlane_pickles.py data/OpenLane-V2

    DIR/data_dict_subset_A.json                    the frames of each split, from the data set
    DIR/data_dict_subset_A_{train,val,test}.pkl    what this writes

Lanes of train keep their 201 points; those of val have the 11 by which they are scored. Each frame
is checked as the training would; all pickles are written, or, if one cannot be, none.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.files import write_atomically
from internimage.openmmlab_needed import openmmlab_needed

with openmmlab_needed("make_openlane_pickles"):
    from internimage.integrations.openmmlab.driving.data.openlane import collect_split
    from internimage.integrations.openmmlab.driving.data.pickles import write_pickle
    from tools.command_line import run_tool

NAME = "make_openlane_pickles"
LIST = "data_dict_subset_A"
EMPTY = "segments without frames, left out"


def write_pickles(root: Path, splits: Sequence[str] | None = None) -> dict[str, dict[str, int]]:
    """Writes the pickles of splits and returns what each holds: counts by their name.

    Args:
        root: Folder of the data set.
        splits: Which ones; None for all of the list.

    Raises:
        FileNotFoundError: The list or a frame is missing.
        ValueError: A file is no json, a frame is not whole or listed twice, or there is no such
            split, or no frame in it. Nothing has been written then.
    """
    path = root / f"{LIST}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{NAME}: expected the list of the frames, got no file {path}")
    try:
        listed = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{NAME}: expected json, got {path}: {error}") from error
    if not isinstance(listed, dict):
        raise ValueError(f"{NAME}: expected frames by split in {path}, got {listed!r:.40}")
    unknown = [split for split in splits or () if split not in listed]
    if unknown:
        raise ValueError(f"{NAME}: expected splits out of {sorted(listed)}, got {unknown}")
    # A split that is named twice is written once.
    chosen = dict.fromkeys(splits or listed)
    # All of them before anything is written: pickles of two runs are no set.
    collected = {split: collect_split(root, listed[split], split) for split in chosen}
    if not collected:
        raise ValueError(f"{NAME}: expected at least one split in {path}, got none")
    _write([(root / f"{LIST}_{split}.pkl", frames) for split, frames in collected.items()])
    return {
        split: {
            "frames": len(frames),
            EMPTY: sum(not names for names in listed[split].values()),
        }
        for split, frames in collected.items()
    }


def _write(pickles: Sequence[tuple[Path, Any]]) -> None:
    """Writes all pickles or, where one does not find its place on the disk, none."""
    (path, content), *others = pickles

    def write(temporary: Path) -> None:
        write_pickle(temporary, content)
        # The others take their names while this one is whole on the disk and still without its own.
        if others:
            _write(others)

    write_atomically(path, write)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Writes the pickles of OpenLane-V2.")
    parser.add_argument("root", type=Path, metavar="DIR", help="folder of the data set")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: all of the list")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    for split, counts in write_pickles(args.root, args.splits).items():
        said = [f"{count:,} {what}" for what, count in counts.items() if count]
        print(f"{args.root / f'{LIST}_{split}.pkl'}: {', '.join(said)}")


if __name__ == "__main__":
    sys.exit(main())
