"""Scores a submission of one of the three driving benchmarks against the truth.

python tools/score_driving_submission.py submission/ occ_infos_temporal_val.pkl      # occupancy
python tools/score_driving_submission.py submission.pkl data_dict_subset_A_val.pkl   # lanes
python tools/score_driving_submission.py submission.json val_annotations.json        # maps

The scores go to standard output as JSON, 0-1. A submission of occupancy or lanes has
to have every frame; in one of maps a frame that is missing counts as an empty map, as the challenge
has it, and is counted. So are frames of a submission that the truth does not have.
"""

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.openmmlab_needed import openmmlab_needed

with openmmlab_needed("score_driving_submission"):
    import numpy as np

    from internimage.integrations.openmmlab.driving.data.frames import (
        check_frames,
        naming_file,
        naming_frame,
        whole_number,
    )
    from internimage.integrations.openmmlab.driving.data.map_elements import (
        MapElements,
        elements_from_annotation,
    )
    from internimage.integrations.openmmlab.driving.data.occ3d import Occ3DDataset, read_voxels
    from internimage.integrations.openmmlab.driving.data.openlane import SCORED_INTERVAL, thinned
    from internimage.integrations.openmmlab.driving.data.openlane_layout import check_frame
    from internimage.integrations.openmmlab.driving.data.pickles import read_pickle
    from internimage.integrations.openmmlab.driving.metrics.occupancy_metric import OccupancyMetric
    from internimage.integrations.openmmlab.driving.metrics.openlane_metric import (
        evaluate_submission,
    )
    from internimage.integrations.openmmlab.driving.metrics.vector_map import (
        check_elements,
        elements_from_submission,
        score_vector_maps,
    )
    from internimage.integrations.openmmlab.scripts.records import to_scores
    from tools.command_line import run_tool

NAME = "score_driving_submission"


def score_maps(submission: Path, truth_file: Path) -> dict[str, Any]:
    """Returns the scores of a submission of maps; see ``score_vector_maps``.

    Args:
        submission: Its ``results`` are by frame.
        truth_file: The annotation file of the split: frames by segment.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file holds something else, or a frame is not whole.
    """
    content, annotations = _read(submission), _read(truth_file)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise ValueError(
            f"{NAME}: expected a submission with results by frame, got {content!r:.60}, in "
            f"{submission}"
        )
    if not isinstance(annotations, dict) or not all(
        isinstance(frames, list) for frames in annotations.values()
    ):
        raise ValueError(
            f"{NAME}: expected a truth of frames by segment, got {annotations!r:.60}, in "
            f"{truth_file}"
        )
    truth: dict[str, MapElements] = {}
    with naming_file(str(truth_file)):
        for segment, frames in annotations.items():
            check_frames(NAME, frames, f"segment {segment} of the truth", name=_time)
            for frame in frames:
                token = str(_time(frame))
                if token in truth:
                    raise ValueError(f"{NAME}: expected each timestamp once, got {token} again")
                with naming_frame(NAME, token):
                    truth[token] = elements_from_annotation(frame["annotation"])
                    check_elements(token, truth[token], scored=False)
    with naming_file(str(submission)):
        predictions = {
            token: elements_from_submission(token, result) for token, result in results.items()
        }
    scores = score_vector_maps(truth, predictions)
    missing, unknown = scores["missing_frames"], scores["unknown_frames"]
    if missing:
        _warn(f"{missing:,} of {len(truth):,} frames have no predictions and count as empty maps")
    _warn_of_unknown(unknown)
    return scores


def _time(frame: Mapping[str, Any]) -> int:
    return whole_number(frame, "timestamp")


def _warn_of_unknown(count: int) -> None:
    if count:
        _warn(f"{count:,} frames of the submission are not in the truth")


def _warn(text: str) -> None:
    print(f"{NAME}: warning: {text}", file=sys.stderr)


def score_occupancy(folder: Path, info_file: Path) -> dict[str, Any]:
    """Returns the scores of a submission of occupancy on what the cameras see.

    Args:
        folder: A file ``<token>.npz`` for each frame with its classes (X, Y, Z).
        info_file: That of the split, at the root of its data set.

    Raises:
        FileNotFoundError: There is no info file, or no voxels of a frame.
        ValueError: A frame is missing, or a file holds something else.
    """
    dataset = Occ3DDataset(data_root=str(info_file.parent), ann_file=info_file.name)
    frames = [dataset.get_data_info(index) for index in range(len(dataset))]
    # All of them before the first grid is scored, which takes a while.
    missing = [frame["token"] for frame in frames if not _grid_path(folder, frame).is_file()]
    if missing:
        raise ValueError(
            f"{NAME}: expected predictions for {len(frames)} frames in {folder}, got none for "
            f"{len(missing)} of them, the first {missing[0]}"
        )
    _warn_of_unknown(
        len({path.stem for path in folder.glob("*.npz")} - {frame["token"] for frame in frames})
    )
    metric = OccupancyMetric()
    for frame in frames:
        path = _grid_path(folder, frame)
        prediction = _read_grid(path)
        voxels = read_voxels(Path(frame["ann_occupancy"]))
        fields = {"pred_semantics": prediction, "gt_semantics": voxels["semantics"]}
        # Frame by frame, so that one grid is in memory at a time; what stays is its counts.
        with naming_file(str(path)), naming_frame(NAME, frame["token"]):
            metric.process(None, [{"token": frame["token"], **fields, **voxels}])
    # 0-1, as everywhere on the command line; the metric itself has percent.
    return to_scores(metric.evaluate(len(frames)))


def _grid_path(folder: Path, frame: dict[str, Any]) -> Path:
    return folder / f"{frame['token']}.npz"


def _read_grid(path: Path) -> np.ndarray:
    """Returns the one array of a file.

    Raises:
        ValueError: It is no archive, or of another number of arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            # No rule says how the array is named: of two, neither is known to be the prediction.
            if len(file.files) == 1:
                return file[file.files[0]]
            names = ", ".join(file.files) or "none"
    # A TypeError where one array is saved without an archive around it.
    except (TypeError, ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        # NumPy would advise to load what is no archive as a pickle, that is, to run it.
        raise ValueError(f"{NAME}: expected a grid in {path}, got none") from error
    raise ValueError(f"{NAME}: expected one array, the grid, in {path}, got {names:.60}")


def score_lanes(submission: Path, truth_file: Path) -> dict[str, Any]:
    """Returns the scores of a submission of lanes; see ``evaluate_submission``.

    Args:
        submission: Its pickle.
        truth_file: The pickle of ``tools/make_openlane_pickles.py``. Lanes with all their points,
            as that of ``train`` has them, are thinned to those by which they are scored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file holds something else, or a frame is missing.
    """
    content, truth = _read(submission), _read(truth_file)
    frames = truth.items() if isinstance(truth, dict) else ()
    with naming_file(str(truth_file)):
        # A frame without annotation, as all of `test`, has nothing to be scored by.
        annotations = {
            name: _thinned(frame["annotation"], name)
            for name, frame in frames
            if isinstance(frame, dict) and frame.get("annotation")
        }
        if not annotations:
            raise ValueError(
                f"{NAME}: expected frames with annotations in the truth, got {truth!r:.60}"
            )
    with naming_file(str(submission)):
        if not isinstance(content, dict):
            raise ValueError(f"{NAME}: expected a submission with results, got {content!r:.60}")
        scores = evaluate_submission(content, annotations)
    _warn_of_unknown(len(content["results"].keys() - truth.keys()))
    return scores


def _thinned(annotation: dict[str, Any], name: Any) -> dict[str, Any]:
    check_frame(annotation, f"the truth of frame {name}")
    lanes = [
        # 11 of 201 points: the distances are between points, so others give other scores.
        {**lane, "points": thinned(np.asarray(lane["points"]), SCORED_INTERVAL)}
        for lane in annotation["lane_centerline"]
    ]
    return {**annotation, "lane_centerline": lanes}


def _read(path: Path) -> Any:
    if path.suffix == ".pkl":
        return read_pickle(path)
    if not path.is_file():
        raise FileNotFoundError(f"{NAME}: expected a file, got none at {path}")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{NAME}: expected json, got {path}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Scores a submission.")
    parser.add_argument(
        "submission", type=Path, help="folder of occupancy, .pkl of lanes, .json of maps"
    )
    parser.add_argument("truth", type=Path, help="info, pickle or annotation file of the split")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    # Each benchmark has its own kind of file, by which the task is known.
    if args.submission.is_dir():
        print(json.dumps(score_occupancy(args.submission, args.truth), indent=1))
        return
    if args.submission.suffix != args.truth.suffix:
        raise ValueError(
            f"{NAME}: expected a folder (occupancy), two .pkl files (lanes) or two .json files "
            f"(maps), got {args.submission} and {args.truth}"
        )
    score = score_lanes if args.truth.suffix == ".pkl" else score_maps
    print(json.dumps(score(args.submission, args.truth), indent=1))


if __name__ == "__main__":
    sys.exit(main())
