"""Every config builds, and the full-size ones are the original's three models."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from torch import Tensor, nn

from internimage.integrations.openmmlab.scripts.checkpoints import (
    compare,
    load_all_weights,
    weights_of,
)
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import transforms
from tests.config_facts import ROOT

CONFIGS = ROOT / "autonomous_driving" / "configs"
RECORDS = ROOT / "tests" / "fixtures" / "parity" / "driving"
LEAVES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)

# Of each full-size model its config and the list of the original's names.
MODELS_OF = {
    "occupancy": ("occupancy_prediction/bevformer_intern-s_occ", "occupancy_bevformer_intern-s"),
    "lanes": ("openlane-v2/internimage-s", "openlanev2_internimage-s"),
    "map": ("Online-HD-Map-Construction/vectormapnet_intern", "vectormapnet_intern"),
}

# What the original's models hold and do not compute with.
UNUSED = {
    "occupancy": set(),
    "lanes": {"pts_bbox_head.code_weights"},
    "map": {
        "backbone.bev_planes",
        "backbone.masked_embeds.weight",
        "head.augmentation.canvas_size",
        "head.augmentation.scaling_size",
        "head.augmentation.shift_scale",
        "head.det_net.canvas_size",
        "head.det_net.label_embed.weight",
        "head.det_net.transformer.level_embeds",
        "head.gen_net.canvas_size",
    },
}


@functools.cache
def config_at(path: Path) -> Config:
    return read_config(path)


@functools.cache
def model_at(path: Path) -> nn.Module:
    """The model of a config, without numbers in it."""
    with torch.device("meta"):
        model = MODELS.build(config_at(path).model)
    return model.to("meta")  # not all parts ask for the default device


def read(task: str, ending: str = "") -> Config:
    return config_at(CONFIGS / f"{MODELS_OF[task][0]}{ending}.py")


def build(task: str, ending: str = "") -> nn.Module:
    return model_at(CONFIGS / f"{MODELS_OF[task][0]}{ending}.py")


@functools.cache
def original_weights(task: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Shapes of the original's weights by its names, and what else is known of them."""
    path = RECORDS / f"keys_{MODELS_OF[task][1]}.json.gz"
    record = json.loads(gzip.decompress(path.read_bytes()))
    weights = {key: torch.empty(shape, device="meta") for key, shape in record["keys"].items()}
    return weights, record


@pytest.mark.slow
@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_every_config_builds_model_optimiser_data_sets_transforms_and_scores(path: Path):
    config, model = config_at(path), model_at(path)
    build_optim_wrapper(model, config.optim_wrapper)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        DATASETS.build({**config[loader].dataset, "lazy_init": True})
    for step in transforms(config.train_dataloader.dataset.pipeline):
        TRANSFORMS.build(step)
    (metric,) = Evaluator([config.test_evaluator]).metrics
    best = config.default_hooks.checkpoint.get("save_best")
    assert best is None or best.startswith(f"{metric.prefix}/")


@pytest.mark.parametrize("task", MODELS_OF)
@pytest.mark.parametrize("ending", ["", "_released"])
def test_all_names_and_shapes_of_the_original_become_ours(task: str, ending: str):
    model = build(task, ending)
    weights, _ = original_weights(task)
    report = compare(model, weights_of({"state_dict": weights}, "made"))
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    load_all_weights(model, {"state_dict": weights}, "made")


@pytest.mark.parametrize("task", MODELS_OF)
def test_a_model_loads_the_originals_names_by_itself_and_from_a_wrapped_model(task: str):
    weights, _ = original_weights(task)
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    for given in (weights, wrapped):
        build(task).load_state_dict(dict(given), strict=True, assign=True)


@pytest.mark.parametrize("task", MODELS_OF)
def test_nothing_of_the_originals_weights_is_lost_but_what_computes_nothing(task: str):
    weights, record = original_weights(task)
    kept = {id(value) for value in weights_of({"state_dict": weights}, "made").values()}
    lost = {key for key, value in weights.items() if id(value) not in kept}
    assert lost - set(record["shared_storage_aliases"]) == UNUSED[task]


@pytest.mark.parametrize("task", MODELS_OF)
def test_a_model_has_the_originals_number_of_parameters(task: str):
    count = sum(parameter.numel() for parameter in build(task).parameters())
    weights, record = original_weights(task)
    idle = sum(weights[key].numel() for key in UNUSED[task] if key not in record["buffers"])
    assert count == record["n_parameters"] - idle


def test_a_weight_that_the_original_has_not_is_refused():
    weights = {**original_weights("lanes")[0], "stranger.weight": torch.empty(1, device="meta")}
    with pytest.raises(ValueError, match=r"one of the original's .* got stranger\.weight"):
        weights_of({"state_dict": weights}, "made")


def test_a_checkpoint_of_one_task_is_refused_by_another():
    weights, _ = original_weights("map")
    with pytest.raises(ValueError, match="got made, of which only the backbone fits"):
        load_all_weights(build("occupancy"), {"state_dict": weights}, "made")


# Of the table of the three baselines: lr, weight decay, share of the backbone's lr, gradient clip,
# epochs, warm-up steps and their first factor, frames a GPU, frames of a queue.
RECIPES = {
    "occupancy": (2e-4, 0.05, 1.0, 35, 24, 500, 1 / 3, 1, 4),
    "lanes": (2e-4, 0.01, 0.1, 35, 24, 500, 1 / 3, 1, 1),
    "map": (1e-3, 0.01, 0.1, 3.5, 130, 400, 0.1, 5, 1),
}


@pytest.mark.parametrize("task", MODELS_OF)
def test_the_recipes_are_the_originals(task: str):
    config = read(task)
    wrapper = build_optim_wrapper(build(task), config.optim_wrapper)
    warm_up = config.param_scheduler[0]
    groups = wrapper.optimizer.param_groups
    rates = {group["lr"] for group in groups}
    assert (
        max(rates),
        max(group["weight_decay"] for group in groups),
        pytest.approx(min(rates) / max(rates)),
        config.optim_wrapper.clip_grad.max_norm,
        config.train_cfg.max_epochs,
        warm_up.end,
        warm_up.start_factor,
        config.train_dataloader.batch_size,
        config.train_dataloader.dataset.get("queue_length", 1),
    ) == RECIPES[task]


def test_the_slow_rate_of_maps_is_for_everything_before_the_head():
    config, model = read("map"), build("map")
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    slow = {
        names[id(parameter)].split(".")[0]
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
        if group["lr"] < 1e-3
    }
    fast = {name.split(".")[0] for name in names.values()} - slow
    assert (slow, fast) == ({"backbone", "neck", "view"}, {"head"})


# Cells of the view, metres of a cell, layers, pillar points and cameras; the share of the range
# that is above the ego.
@pytest.mark.parametrize(
    ("task", "shape", "cell", "layers", "points", "cameras", "top"),
    [("occupancy", (200, 200), 0.4, 4, 8, 6, 5.4), ("lanes", (100, 200), 0.512, 3, 4, 7, 1.7)],
)
def test_views_are_the_originals(
    task: str, shape: tuple, cell: float, layers: int, points: int, cameras: int, top: float
):
    view = build(task).view
    assert view.grid.shape == shape
    assert view.grid.cell_size == pytest.approx((cell, cell))
    assert view.grid.range[5] == top
    assert len(view.encoder.layers) == layers
    assert view.pillar_points.shape == (shape[0] * shape[1], points, 3)
    assert view.cams_embeds.shape == (cameras, 256)


def test_only_the_released_configs_have_the_originals_faults():
    plain, released = build("occupancy").view, build("occupancy", "_released").view
    assert (plain.motion, plain.legacy_shift) == ("ego_pose", False)
    assert (released.motion, released.legacy_shift) == ("can_bus", True)
    assert released.rotation_centre == (100, 100)
    plain, released = build("lanes").view, build("lanes", "_released").view
    temporal = [view.encoder.layers[0].attentions[0] for view in (plain, released)]
    assert [part.double_value_projection for part in temporal] == [False, True]
    assert (plain.absolute_can_bus, released.absolute_can_bus) == (False, True)
    for task in ("lanes", "map"):
        steps = [
            [step["type"] for step in read(task, ending).test_dataloader.dataset.pipeline]
            for ending in ("", "_released")
        ]
        assert "ScaleMatricesByPadding" not in steps[0]
        assert steps[1] == [*steps[0][:2], "ScaleMatricesByPadding", *steps[0][2:]]


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_ranks_wait_longer_for_the_scores_than_those_take(path: Path):
    options = config_at(path).env_cfg.dist_cfg
    assert options == {"backend": "nccl", "timeout": 3600}  # seconds: OLS needs ten minutes


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_images_are_changed_before_they_are_normalised_and_only_in_training(path: Path):
    config = config_at(path)
    steps = [step["type"] for step in config.train_dataloader.dataset.pipeline]
    # The preprocessor of the model normalises: what stands here sees 0-255.
    assert not [name for name in steps if "Normalize" in name]
    tested = [step["type"] for step in config.test_dataloader.dataset.pipeline]
    assert "DrivingPhotometricDistortion" not in tested
