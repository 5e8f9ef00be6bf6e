"""Makes small drives through a made-up world, in the formats of three driving data sets.

python tools/make_driving_scenes.py --out data/driving_scenes

Cameras of known matrices look, ray by ray, at boxes beside a bent road, while the car drives along
it at constant speed and turn.

    DIR/nuscenes        nuScenes' tables and CAN messages, Occ3D's voxels: for occupancy
    DIR/openlane        OpenLane-V2's frames: for lanes, traffic elements and their topology
    DIR/argoverse2      the vector map around the car, on the images of the same drives

The same arguments give the same files, byte for byte. A folder that was left half does not appear
under its name.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.openmmlab_needed import openmmlab_needed
from tools.coco_files import whole_folder

NAME = "make_driving_scenes"
# The info files of two of the sets are those that the readers of the driving models are tested on.
with openmmlab_needed(NAME):
    from tools.command_line import progress, run_tool
    from tools.driving_scenes.nuscenes import write_nuscenes
    from tools.driving_scenes.ring import record, write_argoverse, write_openlane
    from tools.driving_scenes.voxels import FULL, SMALL

FOLDERS = ("nuscenes", "openlane", "argoverse2")
GRIDS = {"small": SMALL, "full": FULL}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Makes small drives in the formats of three driving data sets."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--sets", nargs="+", choices=FOLDERS, default=FOLDERS, help="which to make")
    parser.add_argument(
        "--grid",
        choices=GRIDS,
        default="small",
        help="voxels of nuscenes: small 20x20x4 of 1.6 m, full Occ3D's own 200x200x16 of 0.4 m",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another is another world")
    parser.add_argument("--overwrite", action="store_true", help="replace scenes that are there")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _make(args))


def _make(args: argparse.Namespace) -> None:
    if args.seed < 0:
        raise ValueError(f"{NAME}: expected --seed >= 0, got {args.seed}")
    needs_ring = bool({"openlane", "argoverse2"} & set(args.sets))
    lines = []
    with (
        whole_folder(args.out, tool=NAME, overwrite=args.overwrite, content=FOLDERS) as folder,
        progress("data sets", len(args.sets)) as advance,
    ):
        # Once for both sets, which show the same drives. A list, for it is read twice.
        recordings = list(record(num_frames=4, seed=args.seed)) if needs_ring else []
        writers: dict[str, Callable[[Path], int]] = {
            # 2.5 s of drives at 2 Hz here, 1.5 s there: all sets together are below 10 MB.
            "nuscenes": lambda root: write_nuscenes(
                root, num_frames=6, seed=args.seed, grid=GRIDS[args.grid]
            ),
            "openlane": lambda root: write_openlane(root, recordings),
            "argoverse2": lambda root: write_argoverse(root, recordings),
        }
        # In this order, whatever that of --sets: each set draws from generators of its own.
        for name in FOLDERS:
            if name in args.sets:
                count = writers[name](folder / name)
                lines.append(f"{args.out / name}: {count:,} images")
                advance(1)
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
