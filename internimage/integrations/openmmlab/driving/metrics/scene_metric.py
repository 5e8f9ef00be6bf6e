"""What the metrics share: frames gathered from processes scene by scene, and a submission."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, collect_results, get_world_size
from mmengine.evaluator import BaseMetric


class SceneMetric(BaseMetric):
    """Scores frames, or writes the submission of a benchmark, or both.

    Results are gathered by frame: mmengine's own way, by place, is for frames dealt out by turns,
    not for whole scenes. A subclass appends to ``self.results`` one dictionary a frame, with its
    ``token``, and implements :meth:`score` and :meth:`write_submission`, which get each frame once,
    on the main process; the others wait for it, no longer than ``env_cfg.dist_cfg.timeout``.

    Args:
        format_only: write the submission and score nothing; no truth is needed.
        output_dir: folder of the submission; None writes nothing.
        submission: what the submission says beside the predictions: method, authors and so on.
        **kwargs: those of mmengine's ``BaseMetric``. Processes on several machines need a
            ``collect_dir`` that all of them see.

    Raises:
        ValueError: There is no folder to write to.
    """

    results: list[Any]

    def __init__(
        self,
        *,
        format_only: bool = False,
        output_dir: str | None = None,
        submission: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # It would run for hours and leave nothing.
        if format_only and output_dir is None:
            raise ValueError(
                f"{type(self).__name__}: expected an output_dir with format_only, got none"
            )
        self.format_only = format_only
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.submission = dict(submission or {})

    def score(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Return the scores over all frames."""
        raise NotImplementedError

    def write_submission(self, results: list[dict[str, Any]], folder: Path) -> None:
        """Write the submission, of all frames, into a folder that exists."""
        raise NotImplementedError

    def require(self, sample: Mapping[str, Any], name: str) -> Any:
        """Return a field of a sample.

        Raises:
            ValueError: It is not there.
        """
        if name not in sample:
            raise ValueError(
                f"{type(self).__name__}: expected {name} of frame {sample['token']}, got none"
            )
        return sample[name]

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """The meta information of the data set, which a loop hands over before the run."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any]) -> None:
        # Here and not with the frame at hand: that would be after the first epochs of training.
        bare = dataset_meta.get("without_truth", ())
        if bare and not self.format_only:
            raise ValueError(
                f"{type(self).__name__}: expected the truth of all frames to score, got none for "
                f"{len(bare):,} of them, the first {bare[0]}; format_only writes the submission of "
                "a split without any"
            )
        self._dataset_meta = dataset_meta

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Write the submission and return the scores, as far as they are asked for."""
        # The submission first: it is there even if the score refuses something.
        if self.output_dir is not None:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self.write_submission(results, self.output_dir)
        return {} if self.format_only else self.score(results)

    def evaluate(self, size: int) -> dict[str, Any]:
        """Return the metrics over the frames of all processes.

        Args:
            size: frames of the data set, from mmengine's loop.

        Raises:
            ValueError: There are fewer frames than ``size``.
        """
        # First of all, so that frames of an evaluation that failed are not in the next one.
        results, self.results = self.results, []
        # One piece a process: frames themselves mmengine would deal out by turns and cut to `size`,
        # before anybody has seen which of them are repeats.
        pieces = collect_results(
            [results], get_world_size(), self.collect_device, tmpdir=self.collect_dir
        )
        outcome: list[Any] = [None]
        if pieces is not None:  # on the main process alone
            try:
                outcome = [self._score(pieces, size)]
            except Exception as error:  # the others wait for what this one has to say
                outcome = [error]
        # A collective call, which every process reaches, with scores or with an error.
        broadcast_object_list(outcome)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def _score(self, pieces: list[list[dict[str, Any]]], size: int) -> dict[str, Any]:
        gathered: dict[str, dict[str, Any]] = {}
        for result in itertools.chain.from_iterable(pieces):
            # The first wins: a frame is seen twice where a loader filled up its last batch.
            gathered.setdefault(result["token"], result)
        if len(gathered) < size:
            raise ValueError(
                f"{type(self).__name__}: expected predictions for {size} frames, got "
                f"{len(gathered)}"
            )
        # What mmengine's own `evaluate`, which this one replaces, puts before every name.
        prefix = f"{self.prefix}/" if self.prefix else ""
        scores = self.compute_metrics(list(gathered.values()))
        return {f"{prefix}{name}": value for name, value in scores.items()}
