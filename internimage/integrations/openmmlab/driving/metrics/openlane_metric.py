"""OLS as mmengine's metric, and the submission of OpenLane-V2's challenge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from internimage.integrations.openmmlab.driving.data.openlane_layout import (
    check_frame,
    lanes_to_openlane,
)
from internimage.integrations.openmmlab.driving.data.pickles import write_pickle
from internimage.integrations.openmmlab.driving.metrics.openlane import (
    Version,
    check_versions,
    evaluate_openlane,
)
from internimage.integrations.openmmlab.driving.metrics.scene_metric import SceneMetric

# The keys as the challenge's server spells them, with blanks and slashes.
SUBMISSION_FIELDS = ("method", "authors", "e-mail", "institution / company", "country / region")

FrameName = tuple[str, str, str]
"""Split, segment and timestamp, by which a submission names a frame."""


def make_submission(
    results: Mapping[FrameName, dict[str, Any]], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a submission to the challenge: what the pickle holds.

    Args:
        results: the predictions of each frame in the layout of OpenLane-V2.
        fields: those of ``SUBMISSION_FIELDS`` that are known; the others stay empty.

    Raises:
        ValueError: there is no such field, or a frame's predictions are not whole.
    """
    _check_fields(fields, "make_submission")
    for name, predictions in results.items():
        check_frame(predictions, f"the predictions of frame {name}", scored=True)
    empty: dict[str, Any] = {key: [] if key == "authors" else "" for key in SUBMISSION_FIELDS}
    return {
        **empty,
        **fields,
        "results": {name: {"predictions": frame} for name, frame in results.items()},
    }


def _check_fields(fields: Mapping[str, Any], name: str) -> None:
    unknown = set(fields) - set(SUBMISSION_FIELDS)
    if unknown:
        raise ValueError(
            f"{name}: expected fields out of {SUBMISSION_FIELDS}, got {sorted(unknown)}"
        )


def evaluate_submission(
    submission: Mapping[str, Any],
    annotations: Mapping[FrameName, dict[str, Any]],
    versions: Sequence[Version] = ("1.0", "2.1"),
) -> dict[str, float]:
    """Return the scores of a submission; see ``evaluate_openlane``.

    Args:
        submission: what the pickle holds. Frames that have no annotation are not looked at.
        annotations: the truth of each frame that is to be scored.
        versions: of the topology scores.

    Raises:
        ValueError: the submission has no results or lacks a frame, or one is not whole.
    """
    results = submission.get("results")
    if not isinstance(results, Mapping):
        raise ValueError(
            f"evaluate_submission: expected a submission with results, got {sorted(submission)}"
        )
    missing = [name for name in annotations if name not in results]
    if missing:
        raise ValueError(
            f"evaluate_submission: expected predictions for {len(annotations)} frames, got none "
            f"for {len(missing)} of them, the first {missing[0]}"
        )
    for name in annotations:
        if not isinstance(results[name], Mapping) or "predictions" not in results[name]:
            raise ValueError(f"evaluate_submission: expected predictions in frame {name}, got none")
        # Here, where the frame has a name that its author knows.
        check_frame(results[name]["predictions"], f"the predictions of frame {name}", scored=True)
    frames = [(truth, results[name]["predictions"]) for name, truth in annotations.items()]
    return evaluate_openlane(frames, versions)


@METRICS.register_module()
class OpenLaneMetric(SceneMetric):
    """OLS and its parts, 0 to 1, or the submission for the challenge.

    Args:
        versions: of the topology scores; the first has the plain names.
        **kwargs: those of :class:`SceneMetric`; ``submission`` has ``SUBMISSION_FIELDS``.

    Raises:
        ValueError: there is no such version or field of a submission.
    """

    default_prefix = "openlane"

    def __init__(
        self,
        *,
        versions: Sequence[Version] = ("1.0", "2.1"),
        **kwargs: Any,
    ) -> None:
        # Now: the score, which would refuse them too, comes behind a whole epoch.
        check_versions(versions, "OpenLaneMetric")
        super().__init__(**kwargs)
        _check_fields(self.submission, "OpenLaneMetric")
        self.versions = tuple(versions)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep what the score needs of each sample.

        Args:
            data_batch: not used.
            data_samples: dictionaries of ``DrivingSample`` with ``pred_lanes`` and ``gt_lanes``.

        Raises:
            ValueError: a sample has no truth or no predictions, or these are not whole.
        """
        for sample in data_samples:
            result = {
                "token": sample["token"],
                "name": tuple(sample["identifier"]),
                # All, whatever their confidence: the score has cut-offs of its own.
                "predictions": lanes_to_openlane(self.require(sample, "pred_lanes"), scored=True),
            }
            if not self.format_only:
                if "gt_lanes" not in sample:
                    raise ValueError(
                        f"OpenLaneMetric: expected an annotation to score frame {sample['token']}, "
                        "got none; format_only writes the submission of a split without any"
                    )
                result["annotation"] = lanes_to_openlane(sample["gt_lanes"], scored=False)
            self.results.append(result)

    def write_submission(self, results: list[dict[str, Any]], folder: Path) -> None:
        """Write ``submission.pkl``."""
        named = {result["name"]: result["predictions"] for result in results}
        write_pickle(folder / "submission.pkl", make_submission(named, self.submission))

    def score(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Return the scores over all frames."""
        frames = [(result["annotation"], result["predictions"]) for result in results]
        scores = evaluate_openlane(frames, self.versions)
        logger = MMLogger.get_current_instance()
        logger.info("OLS is of version %s; other versions bear their number", self.versions[0])
        return scores
