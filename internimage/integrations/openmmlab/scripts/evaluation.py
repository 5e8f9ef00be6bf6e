"""An evaluation that a stop, or a crash, has kept a run from."""

from __future__ import annotations

from typing import Any

from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from internimage.integrations.openmmlab.scripts.records import RecordsHook


class MissedEvaluationHook(Hook):
    """Evaluates before the first step where a run goes on behind an evaluation that is not there.

    mmengine's loops evaluate right behind a step alone: of a run that ended within its last
    evaluation there would never be any scores.

    Args:
        records: Knows the evaluations that are there.
    """

    priority = "LOWEST"  # the run is ready

    def __init__(self, records: RecordsHook) -> None:
        self.records = records

    def before_train(self, runner: Runner) -> None:
        """Make up for the evaluation; the first rank decides for all."""
        if not runner._resume:
            return
        if runner.iter >= runner.max_iters:
            runner.logger.info(
                f"--resume: the run has ended already, after {runner.iter} of {runner.max_iters} "
                "iterations; a longer one needs a larger train_cfg"
            )
        if runner.val_loop is None:
            return
        done = {iteration for iteration, _ in self.records.history["scores"]}
        # One answer for all ranks: an evaluation that some of them skip never ends.
        is_missing = [_is_due(runner) and runner.iter not in done]
        broadcast_object_list(is_missing)
        if is_missing[0]:
            runner.logger.info(f"The evaluation behind iteration {runner.iter} is made up for")
            runner.val_loop.run()


def _is_due(runner: Runner) -> bool:
    """Return whether a loop would evaluate behind the step that the run has reached."""
    loop: Any = runner.train_loop
    # mmengine does so behind each step: until then dynamic_intervals have had no say.
    loop._decide_current_val_interval()
    if isinstance(loop, IterBasedTrainLoop):
        done, last = loop.iter, loop.max_iters
    elif loop.iter == loop.epoch * len(loop.dataloader):
        done, last = loop.epoch, loop.max_epochs
    else:
        return False  # in the middle of an epoch
    return done > 0 and done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)
