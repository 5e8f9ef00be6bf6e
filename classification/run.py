"""A training run from the first or the resumed epoch to the files that it leaves."""

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from yacs.config import CfgNode

import internimage
from classification.checkpoint import (
    check_same_run,
    epoch_of,
    list_checkpoints,
    load_state,
    prune_checkpoints,
    save_state,
)
from classification.data import Data, build_data
from classification.distributed import Ranks, on_first_rank
from classification.engine import Engine, EpochResult, Scores
from classification.models import build_metadata, build_model
from classification.progress import Progress
from classification.records import draw_curves, weights_sha256, write_json, write_metrics
from classification.run_folder import (
    CONFIG,
    CURVES,
    METRICS,
    SUMMARY,
    WEIGHTS,
    check_is_free,
    is_in,
    make_run_folder,
    run_files,
    run_folder,
    writing,
)
from internimage import CheckpointMetadata
from internimage.checkpoint_file import METADATA_KEY
from internimage.complexity import count_parameters
from internimage.files import write_atomically


@dataclass
class Run:
    """A run that is ready to train; ``prepare`` makes one.

    Args:
        config: The settings.
        ranks: This process among all.
        data: The images.
        engine: Trains and evaluates the model.
        epochs_done: Epochs that are complete.
        seconds: Training time so far, evaluation and saving included.
        rows: The rows of metrics.csv so far.
        checkpoints: The files in the run's folder from which it could go on, the newest at the
            end. Older ones than SAVE_CKPT_NUM are removed.
    """

    config: CfgNode
    ranks: Ranks
    data: Data
    engine: Engine
    epochs_done: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)

    def train(self) -> None:
        """Trains until TRAIN.EPOCHS are done and writes the run's files.

        Raises:
            DivergedError: The gradient is not finite.
            OSError: A file could not be written.
        """
        config, folder = self.config, run_folder(self.config)
        started = time.perf_counter() - self.seconds
        num_steps = config.TRAIN.EPOCHS * self.engine.steps_per_epoch
        with Progress(num_steps, update_every=config.PRINT_FREQ, ranks=self.ranks) as progress:
            progress.line(self._headline())
            scores = None
            while self.epochs_done < config.TRAIN.EPOCHS:
                result = self.engine.train_epoch(self.epochs_done, on_step=progress.step)
                self.epochs_done += 1
                is_last = self.epochs_done == config.TRAIN.EPOCHS
                is_evaluated = is_last or self.epochs_done % config.EVAL_FREQ == 0
                scores = self.engine.evaluate() if is_evaluated else None
                self.seconds = time.perf_counter() - started
                self.rows.append(self._row(result, scores))
                progress.epoch(self.rows[-1], config.TRAIN.EPOCHS)
                is_saved = is_last or self.epochs_done % config.SAVE_FREQ == 0
                on_first_rank(self.ranks, partial(self._save_epoch, folder, is_saved))
        if scores is not None:
            on_first_rank(self.ranks, partial(self._finish, folder, scores))

    def _save_epoch(self, folder: Path, with_checkpoint: bool) -> None:
        with writing(folder / METRICS) as path:
            write_metrics(path, self.rows)
        if not with_checkpoint:
            return
        progress = {
            "epochs_done": self.epochs_done,
            "seconds": self.seconds,
            "rows": self.rows,
            "config": self.config.dump(),
            "world_size": self.ranks.world_size,
            "steps_per_epoch": self.engine.steps_per_epoch,
            METADATA_KEY: self._metadata().to_json(),  # for internimage predict
        }
        with writing(folder / f"ckpt_epoch_{self.epochs_done}.pth") as path:
            save_state(path, self.engine.state_dict() | progress)
        # An epoch that is done again replaces its file.
        self.checkpoints[:] = [*(old for old in self.checkpoints if old != path), path]
        prune_checkpoints(self.checkpoints, num_kept=self.config.SAVE_CKPT_NUM)

    def _finish(self, folder: Path, scores: Scores) -> None:
        """Writes what a complete run leaves, the summary last: where it is, all is."""
        config, model = self.config, self.engine.final_model
        with writing(folder / WEIGHTS) as path:
            internimage.save_checkpoint(model, path, metadata=self._metadata())
        title = f"{config.MODEL.NAME}, seed {config.SEED}"
        with writing(folder / CURVES) as path:
            draw_curves(path, self.rows, title=title)
        summary = {
            "name": config.MODEL.NAME,
            "top1": scores.top1,
            "top5": scores.top5,
            "num_test_images": scores.num_images,
            "epochs": self.epochs_done,
            "steps": self.engine.step,
            "train_seconds": round(self.seconds, 2),
            "weights": "model" if self.engine.ema is None else "ema",
            "weights_sha256": weights_sha256(model.state_dict()),
            "seed": config.SEED,
            "world_size": self.ranks.world_size,
        }
        with writing(folder / SUMMARY) as path:
            write_json(path, summary)
        print(f"top-1 {scores.top1:.2f} % of {scores.num_images} test images; files in {folder}")

    def _metadata(self) -> CheckpointMetadata:
        return build_metadata(self.config, class_names=self.data.class_names)

    def _headline(self) -> str:
        num_parameters = count_parameters(self.engine.model)
        return (
            f"{self.config.MODEL.NAME}: {self.config.MODEL.ARCH}, {num_parameters / 1e6:.2f} M "
            f"parameters; {self.data.num_train_images} training and {self.data.num_test_images} "
            f"test images; {self.ranks.world_size} x {self.ranks.device.type}, "
            f"{torch.get_num_threads()} threads each; {self.config.TRAIN.EPOCHS} epochs of "
            f"{self.engine.steps_per_epoch} steps"
        )

    def _row(self, result: EpochResult, scores: Scores | None) -> dict[str, float]:
        row = {
            "epoch": self.epochs_done,
            "step": self.engine.step,
            "learning_rate": result.learning_rate,
            "train_loss": result.train_loss,
            "gradient_norm": result.gradient_norm,
            "images_per_second": result.images_per_second,
            "seconds": self.seconds,
        }
        if scores is not None:
            row |= {"test_loss": scores.loss, "top1": scores.top1, "top5": scores.top5}
        return row


def prepare(config: CfgNode, ranks: Ranks, *, overwrite: bool = False) -> Run:
    """Builds folder, data, model and engine, and takes up MODEL.RESUME.

    Args:
        config: The settings.
        ranks: This process among all.
        overwrite: Removes the files of a run that is in the folder, when all else is well.

    Raises:
        ValueError: The settings do not fit the disk, the data, the ranks or the checkpoint, or
            the folder holds another run.
    """
    folder = run_folder(config)
    if not overwrite:
        # On every rank, so that all stop. No rank writes results before the engine has joined all.
        check_is_free(folder, resume=config.MODEL.RESUME)
    elif is_in(folder, config.MODEL.RESUME):
        raise ValueError(
            "prepare: expected --resume or --overwrite, got both for a checkpoint in the folder to "
            f"overwrite, {folder}"
        )
    on_first_rank(ranks, partial(make_run_folder, folder))
    data = build_data(config, ranks)
    torch.manual_seed(config.SEED)  # the same weights on every rank
    model = build_model(config, num_classes=len(data.class_names))
    run = Run(config, ranks, data, Engine(config, model, data, ranks))
    if config.MODEL.RESUME:
        state = load_state(config.MODEL.RESUME)
        check_same_run(
            state,
            config,
            world_size=ranks.world_size,
            steps_per_epoch=run.engine.steps_per_epoch,
        )
        run.engine.load_state_dict(state)
        run.epochs_done, run.seconds = state["epochs_done"], state["seconds"]
        run.rows = state["rows"]
        if is_in(folder, config.MODEL.RESUME):
            run.checkpoints += [
                path
                for path in list_checkpoints(folder)
                if (epoch_of(path) or 0) <= run.epochs_done
            ]
    if run.epochs_done >= config.TRAIN.EPOCHS:
        raise ValueError(
            f"prepare: expected TRAIN.EPOCHS > epochs of the checkpoint = {run.epochs_done}, "
            f"got {config.TRAIN.EPOCHS}"
        )
    on_first_rank(ranks, partial(_begin, folder, config, overwrite))
    return run


def _begin(folder: Path, config: CfgNode, overwrite: bool) -> None:
    """Removes what is of an earlier run, and writes the settings."""
    for old in run_files(folder) if overwrite else [folder / SUMMARY]:
        old.unlink(missing_ok=True)  # the summary says that the run is complete
    with writing(folder / CONFIG) as path:
        write_atomically(path, lambda file: file.write_text(config.dump(), "utf-8"))
