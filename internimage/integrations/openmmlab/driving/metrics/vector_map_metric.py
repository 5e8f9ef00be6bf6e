"""The metric of a run: vectorised maps scored, or written for the challenge's server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import METRICS

from internimage.files import write_atomically
from internimage.integrations.openmmlab.driving.data.map_elements import MAP_CLASSES, MapElements
from internimage.integrations.openmmlab.driving.metrics.scene_metric import SceneMetric
from internimage.integrations.openmmlab.driving.metrics.vector_map import (
    THRESHOLDS,
    check_elements,
    score_vector_maps,
)

# What the challenge's server asks of every submission; we use cameras alone.
_META = {
    "use_lidar": False,
    "use_camera": True,
    "use_external": False,
    "output_format": "vector",
}


@METRICS.register_module()
class VectorMapMetric(SceneMetric):
    """Average precision of polylines by Chamfer distance, and the file of a submission.

    ``mAP``, ``AP_<class>``, means over the thresholds, and ``AP@<threshold>``, means over the
    classes; all 0-1.

    Args:
        thresholds: distances in metres up to which a polyline is right.
        **kwargs: those of :class:`SceneMetric`; ``submission`` goes into the file's ``meta``.

    Raises:
        ValueError: a threshold is not positive.
    """

    default_prefix = "vector_map"

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = THRESHOLDS,
        **kwargs: Any,
    ) -> None:
        if not thresholds or min(thresholds) <= 0:
            raise ValueError(
                f"VectorMapMetric: expected thresholds above 0 m, got {list(thresholds)}"
            )
        super().__init__(**kwargs)
        self.thresholds = tuple(thresholds)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the maps of each frame.

        Args:
            data_batch: not used.
            data_samples: with ``token`` and ``pred_polylines``, and ``gt_polylines`` unless
                ``format_only``.

        Raises:
            ValueError: a sample lacks one of them, or a prediction is not whole.
        """
        # What comes out of diverged weights is no submission either: JSON knows no nan.
        names = ("pred_polylines",) if self.format_only else ("pred_polylines", "gt_polylines")
        for sample in data_samples:
            fields = {name: self.require(sample, name) for name in names}
            check_elements(sample["token"], fields["pred_polylines"], scored=True)
            self.results.append({"token": sample["token"], **fields})

    def write_submission(self, results: list[dict[str, Any]], folder: Path) -> None:
        """Write ``submission.json``."""
        frames = {result["token"]: as_submitted(result["pred_polylines"]) for result in results}
        # What a config gives wins over the defaults: another method may use LiDAR or further data.
        content = json.dumps({"meta": {**_META, **self.submission}, "results": frames})
        write_atomically(folder / "submission.json", lambda path: path.write_text(content))

    def score(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Return the scores over all frames."""
        predictions = {result["token"]: result["pred_polylines"] for result in results}
        truth = {result["token"]: result["gt_polylines"] for result in results}
        scores = score_vector_maps(truth, predictions, thresholds=self.thresholds)
        per_class = scores["per_class"]
        return {
            "mAP": scores["mAP"],
            **{f"AP_{name}": scores["AP"][name] for name in MAP_CLASSES},
            **{
                # Means over the same table the other way: its mean by either way is mAP.
                f"AP@{t}": float(np.mean([values[f"AP@{t}"] for values in per_class.values()]))
                for t in self.thresholds
            },
        }


def as_submitted(elements: MapElements) -> dict[str, list[Any]]:
    """Return a frame's entry of a submission: ``vectors``, ``scores`` and ``labels``."""
    return {
        "vectors": [np.asarray(line).tolist() for line in elements["polylines"]],
        "scores": np.asarray(elements["scores"]).tolist(),
        "labels": np.asarray(elements["labels"]).tolist(),
    }
