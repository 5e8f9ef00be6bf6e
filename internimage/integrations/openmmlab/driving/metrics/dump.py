"""Predictions kept in a file, for whoever computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import DumpResults
from mmengine.registry import METRICS

from internimage.integrations.openmmlab.driving.data.pickles import write_pickle


@METRICS.register_module()
class DumpDrivingResults(DumpResults):
    """Keeps the token and the scene of each frame, and what a head has said of it (``pred_*``).

    mmengine's own keeps the truth as well, which is most of a frame of occupancy, and leaves a file
    cut short where a disk is full.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Take over the predictions of a batch."""
        # The samples as dictionaries, as mmengine's evaluator hands them to every metric.
        super().process(
            data_batch,
            [
                {
                    key: value
                    for key, value in sample.items()
                    if key in ("token", "scene") or key.startswith("pred_")
                }
                for sample in data_samples
            ],
        )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the file, whole or not at all.

        Raises:
            OSError: The disk is full or the folder is not writable; the message names the file.
        """
        path = Path(self.out_file_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pickle(path, results)
        return {}
