"""From nothing to a model: drives, trainings, scores, pictures.

The models have learnt their own frames by heart: what is tested is that everything between files
and scores works together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image

from autonomous_driving.demo import main as demo
from internimage.integrations.openmmlab.driving.metrics.occupancy import (
    confusion_matrix,
    mean_iou,
)
from internimage.integrations.openmmlab.driving.pictures.colours import (
    LANE,
    MAP_COLOURS,
    OCCUPANCY_COLOURS,
)
from internimage.integrations.openmmlab.scripts.checkpoints import (
    load_all_weights,
    read_checkpoint,
)
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.runner import NamingRunner
from tests.script_runs import run_here
from tests.trained_runs import ROOT, TrainedRun

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("signals_and_warnings_as_before")]

MAP_ROWS = {"occupancy": 600, "lanes": 380}  # at the foot of a page, with the legend


def require_learnt(run: TrainedRun, score: str, least: float) -> None:
    """Checks a training's score, its losses and its curves."""
    assert run.read("metrics.json")[score] > least
    losses = [value for _, value in run.read("history.json")["loss"]]
    assert losses[-1] < losses[0] / 2
    with Image.open(run.folder / "curves.png") as picture:
        assert min(picture.size) > 200


def require_pictures(
    run: TrainedRun, colours: Sequence[Sequence[int]], rows: int, folder: Path
) -> None:
    """Checks the pictures of a training, and that the demo draws the same ones.

    Args:
        run: the training.
        colours: of what is predicted.
        rows: of the maps and the legend.
        folder: for the demo.
    """
    drawn = sorted((run.folder / "pictures").glob("*.png"))
    assert len(drawn) == 4
    for path in drawn:
        page = read(path)[-rows:]
        middle = page.shape[1] // 2
        truth, prediction = (
            sum(int((half == colour).all(axis=2).sum()) for colour in colours)
            for half in (page[:, :middle], page[:, middle:])
        )
        assert prediction > 0.5 * truth > 500
    arguments = [run.config, run.checkpoint, "--out", folder, "--limit", 2, "--animate"]
    options = ["--device", "cpu", "--cfg-options", run.data_option]
    assert run_here(demo, *map(str, [*arguments, *options]), folder=ROOT) == 0
    again = sorted(folder.glob("*.png"))
    assert len(again) == 2
    for path in again:
        # Another process may round otherwise, and a voxel or a line may turn on that.
        differs = (read(path) != read(run.folder / "pictures" / path.name)).any(axis=2)
        assert differs.mean() < 0.01
    (animation,) = folder.glob("*.gif")
    with Image.open(animation) as frames:
        assert frames.n_frames == 2


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_occupancy_is_learnt_and_drawn(trained_occupancy: TrainedRun, tmp_path: Path):
    require_learnt(trained_occupancy, "mIoU", 0.6)
    # Roads and pavements are flat: from above they have the colours of their classes.
    colours = [OCCUPANCY_COLOURS[index] for index in (11, 13, 14)]
    require_pictures(trained_occupancy, colours, MAP_ROWS["occupancy"], tmp_path)


def test_lanes_and_their_relations_are_learnt_and_drawn(trained_lanes: TrainedRun, tmp_path: Path):
    require_learnt(trained_lanes, "OLS", 0.5)
    require_pictures(trained_lanes, [LANE], MAP_ROWS["lanes"], tmp_path)


def test_a_vector_map_is_learnt_and_drawn(trained_vector_map: TrainedRun, tmp_path: Path):
    require_learnt(trained_vector_map, "AP@1.5", 0.6)
    require_pictures(trained_vector_map, MAP_COLOURS, MAP_ROWS["lanes"], tmp_path)


def test_with_the_history_of_another_frame_occupancy_is_worse(trained_occupancy: TrainedRun):
    run = trained_occupancy
    config = read_config(run.config, {"data_root": str(run.scenes)})
    model = MODELS.build(config.model)
    load_all_weights(model, read_checkpoint(run.checkpoint), str(run.checkpoint))
    model.eval()
    config.test_dataloader.batch_size = 1
    batches = list(NamingRunner.build_dataloader(config.test_dataloader))
    kept: dict[str, Any] = {}
    right = occupancy_score(model, batches, kept, others={})
    assert right == pytest.approx(run.read("metrics.json")["mIoU"], abs=5e-3)
    # A frame of the other drive, and of another moment in it.
    tokens = list(kept)
    step = len(tokens) // 2 + 3
    others = {token: tokens[(i + step) % len(tokens)] for i, token in enumerate(tokens)}
    assert right > 0.6
    wrong = occupancy_score(model, batches, dict(kept), others=others)
    assert wrong < right - 0.04, (right, wrong)


@torch.inference_mode()
def occupancy_score(
    model: Any, batches: Sequence[dict[str, Any]], kept: dict[str, Any], others: dict[str, str]
) -> float:
    """Returns the mIoU, 0-1, over frames in their order.

    Args:
        model: in evaluation mode.
        batches: of one frame each.
        kept: what the model keeps of each frame, by its token; filled where ``others`` is empty.
        others: of a frame the one whose view is to stand for its own when the next one looks back.
    """
    confusion = np.zeros((18, 18), np.int64)
    model.forget()
    for batch in batches:
        (sample,) = batch["data_samples"]
        if sample.prev in others:
            model._kept = dataclasses.replace(kept[sample.prev], bev=kept[others[sample.prev]].bev)
        (answer,) = model.test_step(batch)
        if not others:
            kept[sample.token] = model._kept
        fields = (answer.pred_semantics, answer.gt_semantics, answer.mask_camera)
        confusion += confusion_matrix(*(np.asarray(field) for field in fields))
    return mean_iou(confusion)
