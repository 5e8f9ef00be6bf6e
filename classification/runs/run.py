"""A training run from the first or the resumed step to the files that it leaves."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from yacs.config import CfgNode

import internimage
from classification.data import Data, build_data
from classification.distributed import (
    Ranks,
    gather_on_first_rank,
    max_over_ranks,
    on_first_rank,
)
from classification.engine import Engine
from classification.evaluation import Scores
from classification.models import build_metadata, build_model
from classification.pretrained import load_pretrained
from classification.results import BadFilesError, EpochResult, StepResult
from classification.runs.checkpoint import (
    checkpoint_name,
    keep_as_best,
    prune_checkpoints,
    save_state,
)
from classification.runs.logs import LOGGER, close_log, open_log
from classification.runs.progress import Progress, describe
from classification.runs.records import draw_curves, weights_sha256, write_json, write_metrics
from classification.runs.resume import History, choose_start, take_up
from classification.runs.run_folder import (
    CONFIG,
    CURVES,
    LOCK_SECONDS,
    METRICS,
    SUMMARY,
    WEIGHTS,
    lock_run_folder,
    make_run_folder,
    remove_half_written,
    run_files,
    run_folder,
    writing,
)
from classification.runs.trackers import NoTracker, Tracker, open_tracker
from internimage import CheckpointMetadata
from internimage.checkpoint_file import METADATA_KEY
from internimage.complexity import count_parameters
from internimage.files import write_atomically
from internimage.processes import StoppedError, StopRequest

OVERWRITE_SECONDS = 2.0

SECONDS_BETWEEN_CURVES = 300.0
"""Drawing takes half a second, so that the end of an epoch is not always worth it."""

SHOWN_BAD_FILES = 10
"""How many unreadable files an error names; the logs have all."""


@dataclass
class Run:
    """A run that is ready to train; ``prepare`` makes one.

    Args:
        config: The settings.
        ranks: This process among all.
        data: The images.
        engine: Trains and evaluates the model.
        history: What it has behind it.
        num_parameters: Of the whole model.
        lock: Held by the first rank while it writes to the folder.
        bad_files: What this rank could not read in this process.
    """

    config: CfgNode
    ranks: Ranks
    data: Data
    engine: Engine
    history: History = field(default_factory=History)
    num_parameters: int = 0
    lock: FileLock | None = None
    bad_files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = run_folder(self.config)
        self.tracker: Tracker = NoTracker()
        self.request = StopRequest()
        self.started = 0.0
        self.drawn = time.perf_counter()

    def train(self) -> None:
        """Trains until TRAIN.EPOCHS are done and writes the run's files.

        Raises:
            BadFilesError: More files than DATA.MAX_BAD_SHARE cannot be read.
            DivergedError: The gradient is not finite.
            OSError: A file could not be written.
            StoppedError: SIGTERM or SIGUSR1 arrived, and the state is saved.
        """
        config, engine = self.config, self.engine
        num_steps = config.TRAIN.EPOCHS * engine.steps_per_epoch
        bar = Progress(
            num_steps, first_step=engine.step, update_every=config.PRINT_FREQ, ranks=self.ranks
        )
        if self.history.is_complete:
            bar.line(f"{self.folder} holds the complete run; pass --overwrite to train anew")
            return
        if self.ranks.is_main:
            self.tracker = open_tracker(config, self.folder, first_step=engine.step)
        self.started = time.perf_counter() - self.history.seconds
        try:
            with self.request, bar as progress:
                self._say(progress, self._headline())
                scores = None
                while engine.epoch < config.TRAIN.EPOCHS:
                    scores = self._train_epoch(progress)
        finally:
            self.tracker.close()
        if scores is not None:
            state = engine.final_state()
            on_first_rank(self.ranks, partial(self._finish, scores, state))

    def close(self) -> None:
        """Lets go of the process group and of the folder; the run is of no more use."""
        self.engine.strategy.close()
        close_log()
        if self.lock is not None:
            self.lock.release()

    def _train_epoch(self, progress: Progress) -> Scores | None:
        """Trains the rest of an epoch, saves, evaluates; returns the scores if it did."""
        config, engine = self.config, self.engine
        number = engine.epoch + 1
        name = checkpoint_name(number)
        # A run that goes on from the end of this epoch has its checkpoint, and is to evaluate it.
        is_at_end = engine.step_in_epoch == engine.steps_per_epoch
        is_saved = is_at_end and self.folder / name in self.history.checkpoints
        with self._naming_bad_files():
            result = engine.train_epoch(
                on_step=partial(self._after_step, progress),
                stop_signal=lambda: self.request.signal_number,
            )
        is_last = number == config.TRAIN.EPOCHS
        is_evaluated = is_last or number % config.EVAL_FREQ == 0
        # Before the evaluation: whoever is killed in it goes on with it.
        if not is_saved and (is_last or number % config.SAVE_FREQ == 0 or self._is_due()):
            self._save(name)
            is_saved = True
        # For a stop in the evaluation, or a score that is the best.
        state = engine.state_dict() if is_evaluated and not is_saved else {}
        engine.end_epoch()
        scores = None
        if is_evaluated:
            try:
                with self._naming_bad_files():
                    scores = engine.evaluate(on_batch=self._after_test_batch)
            except StoppedError:
                if not is_saved:
                    on_first_rank(self.ranks, partial(self._write_checkpoint, name, state))
                raise
        is_best = scores is not None and scores.top1 > self.history.best.get("top1", -1.0)
        if is_best and not is_saved:
            on_first_rank(self.ranks, partial(self._write_checkpoint, name, state))
        self.history.seconds = time.perf_counter() - self.started
        row = self._row(result, scores)
        self.history.rows.append(row)
        LOGGER.info(progress.epoch(row, config.TRAIN.EPOCHS))
        self.tracker.log({f"epoch/{key}": value for key, value in row.items()}, engine.step)
        if scores is not None and is_best:
            self.history.best = {"top1": scores.top1, "epoch": number}
            on_first_rank(self.ranks, partial(self._keep_as_best, name))
        on_first_rank(self.ranks, self._write_metrics)
        engine.next_epoch()
        return scores

    def _after_step(self, progress: Progress, result: StepResult) -> None:
        """Shows a step, saves where it is time to, and stops where a rank is asked to."""
        engine = self.engine
        for name in result.bad_files:
            self.bad_files.append(name)
            LOGGER.warning("unreadable, another image took its place: %s", name)
        figures = progress.step(result)
        if figures is not None:
            LOGGER.info("step %d  %s", result.step, describe(figures))
            self.tracker.log({f"train/{key}": value for key, value in figures.items()}, result.step)
        is_end = engine.step_in_epoch == engine.steps_per_epoch
        if result.stop or (self._is_due() and not is_end):
            self._save(checkpoint_name(engine.epoch + 1, None if is_end else engine.step_in_epoch))
        if result.stop:
            raise StoppedError(result.stop)

    def _is_due(self) -> bool:
        """Whether SAVE_STEPS asks for a checkpoint after this step."""
        every = self.config.SAVE_STEPS
        return every > 0 and self.engine.step % every == 0

    def _after_test_batch(self, bad_files: tuple[str, ...]) -> None:
        """Names unreadable files; leaves on all ranks when one of them is asked to stop."""
        for name in bad_files:
            self.bad_files.append(name)
            LOGGER.warning("unreadable, left out of the test: %s", name)
        signal_number = max_over_ranks(self.request.signal_number, self.ranks)
        if signal_number:
            raise StoppedError(signal_number)

    @contextlib.contextmanager
    def _naming_bad_files(self) -> Iterator[None]:
        """Lets an error about too many bad files name some; all ranks raise it at once."""
        try:
            yield
        except BadFilesError as error:
            of_ranks = gather_on_first_rank(self.ranks, self.bad_files[-SHOWN_BAD_FILES:])
            names = [name for of_rank in of_ranks for name in of_rank] or self.bad_files
            shown = ", ".join(names[:SHOWN_BAD_FILES])
            raise BadFilesError(f"{error}: {shown}, ... (the ranks' logs have all)") from None

    def _save(self, name: str) -> None:
        """Saves the state under a name of ``checkpoint_name``; *collective*."""
        self.history.seconds = time.perf_counter() - self.started
        state = self.engine.state_dict()
        on_first_rank(self.ranks, partial(self._write_checkpoint, name, state))

    def _write_checkpoint(self, name: str, state: dict[str, Any]) -> None:
        progress = {
            "seconds": self.history.seconds,
            "rows": self.history.rows,
            "best": self.history.best,
            "resumed_from": self.history.resumed_from,
            "config": self.config.dump(),
            METADATA_KEY: self._metadata().to_json(),  # for internimage predict
        }
        with writing(self.folder / name) as path:
            save_state(path, state | progress)
        for old in self.history.abandoned:
            if old != path:
                old.unlink(missing_ok=True)
        self.history.abandoned.clear()
        # A place that is reached again replaces its file.
        self.history.checkpoints[:] = [
            *(old for old in self.history.checkpoints if old != path),
            path,
        ]
        prune_checkpoints(self.history.checkpoints, num_kept=self.config.SAVE_CKPT_NUM)
        LOGGER.info("saved %s", path)

    def _keep_as_best(self, name: str) -> None:
        with writing(self.folder / name) as path:
            keep_as_best(path)

    def _write_metrics(self) -> None:
        with writing(self.folder / METRICS) as path:
            write_metrics(path, self.history.rows)
        if time.perf_counter() - self.drawn > SECONDS_BETWEEN_CURVES:
            self._draw_curves()

    def _draw_curves(self) -> None:
        title = f"{self.config.MODEL.NAME}, seed {self.config.SEED}"
        with writing(self.folder / CURVES) as path:
            draw_curves(path, self.history.rows, title=title)
        self.drawn = time.perf_counter()

    def _finish(self, scores: Scores, state: dict[str, Tensor]) -> None:
        """Writes what a complete run leaves, the summary last: where it is, all is."""
        config = self.config
        with writing(self.folder / WEIGHTS) as path:
            internimage.save_checkpoint(state, path, metadata=self._metadata())
        self._draw_curves()
        summary = {
            "name": config.MODEL.NAME,
            "top1": scores.top1,
            "top5": scores.top5,
            "best_top1": self.history.best["top1"],
            "best_epoch": self.history.best["epoch"],
            "num_test_images": scores.num_images,
            "bad_test_files": scores.num_bad_files,
            "epochs": self.engine.epoch,
            "steps": self.engine.step,
            "train_seconds": round(self.history.seconds, 2),
            "weights": "model" if self.engine.average is None else "ema",
            "weights_sha256": weights_sha256(state),
            "seed": config.SEED,
            "strategy": config.TRAIN.STRATEGY,
            "world_size": self.ranks.world_size,
        }
        with writing(self.folder / SUMMARY) as path:
            write_json(path, summary)
        text = f"top-1 {scores.top1:.2f} % of {scores.num_images} test images"
        LOGGER.info(text)
        print(f"{text}; files in {self.folder}")

    def _metadata(self) -> CheckpointMetadata:
        return build_metadata(self.config, class_names=self.data.class_names)

    def _say(self, progress: Progress, text: str) -> None:
        progress.line(text)
        LOGGER.info(text)

    def _headline(self) -> str:
        engine = self.engine
        place = f"; goes on after step {engine.step}" if engine.step else ""
        return (
            f"{self.config.MODEL.NAME}: {self.config.MODEL.ARCH}, "
            f"{self.num_parameters / 1e6:.2f} M parameters; "
            f"{self.data.num_train_images} training and {self.data.num_test_images} test images; "
            f"{self.ranks.world_size} x {self.ranks.device.type}, {self.config.TRAIN.STRATEGY}, "
            f"{torch.get_num_threads()} threads each; "
            f"{self.config.TRAIN.EPOCHS} epochs of {engine.steps_per_epoch} steps{place}"
        )

    def _row(self, result: EpochResult, scores: Scores | None) -> dict[str, float]:
        row = {
            "epoch": self.engine.epoch + 1,
            "step": self.engine.step,
            "learning_rate": result.learning_rate,
            "train_loss": result.train_loss,
            "gradient_norm": result.gradient_norm,
            "images_per_second": result.images_per_second,
            "data_share": result.data_share,
            "bad_files": result.num_bad_files,
            "seconds": self.history.seconds,
        }
        if scores is not None:
            row |= {"test_loss": scores.loss, "top1": scores.top1, "top5": scores.top5}
            row["bad_files"] += scores.num_bad_files
        return row


def prepare(config: CfgNode, ranks: Ranks, *, overwrite: bool = False) -> Run:
    """Builds folder, data, model and engine, and takes up a state to go on from.

    Args:
        config: The settings.
        ranks: This process among all.
        overwrite: Removes the files of a run that is in the folder, when all else is well.

    Raises:
        ValueError: The settings do not fit the disk, the data, the ranks or the checkpoint, or
            the folder holds another run or is in use.
    """
    folder = run_folder(config)
    on_first_rank(ranks, partial(make_run_folder, folder))
    with contextlib.ExitStack() as on_failure:
        # What is to be overwritten is no run that is still going on.
        seconds = OVERWRITE_SECONDS if overwrite else LOCK_SECONDS
        locks: list[FileLock] = []
        on_first_rank(ranks, lambda: locks.append(lock_run_folder(folder, timeout=seconds)))
        for held in locks:  # one, on the first rank
            on_failure.callback(held.release)
        start = on_first_rank(ranks, partial(choose_start, config, folder, ranks, overwrite))
        data = build_data(config, ranks)
        torch.manual_seed(config.SEED)  # the same weights on every rank
        model = build_model(config, num_classes=len(data.class_names))
        report = ""
        if start.checkpoint is None:
            report = load_pretrained(config, model)
        num_parameters = count_parameters(model)  # before a strategy deals them out
        engine = Engine(config, model, data, ranks)
        history = take_up(start, config, engine, data.class_names, folder)
        lock = next(iter(locks), None)
        run = Run(config, ranks, data, engine, history, num_parameters, lock)
        on_first_rank(ranks, partial(_begin, run, overwrite))
        open_log(folder, ranks)
        if report:
            LOGGER.info(report)
            if ranks.is_main:
                print(report)
        on_failure.pop_all()
    return run


def _begin(run: Run, overwrite: bool) -> None:
    """Removes what is of an earlier run, and writes the settings."""
    folder = run.folder
    remove_half_written(folder)
    if run.history.is_complete:
        return
    for old in run_files(folder) if overwrite else [folder / SUMMARY]:
        old.unlink(missing_ok=True)  # the summary says that the run is complete
    with writing(folder / CONFIG) as path:
        write_atomically(path, lambda file: file.write_text(run.config.dump(), "utf-8"))
