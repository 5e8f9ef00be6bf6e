"""What a segmentor's config decides, see ``tests/config_facts.py``."""

from __future__ import annotations

import copy
import functools
import os.path
from typing import Any

from mmengine.config import Config

from tests import config_facts as shared
from tests.config_facts import (
    ROOT,
    current_backbone,
    current_paramwise,
    flatten,
    original_backbone,
    taken,
)
from tests.segmentation.released_configs import to_current

CONFIGS = ROOT / "segmentation" / "configs"

REPEATED = (
    *(*shared.REPEATED, "norm_cfg", "crop_size", "img_scale"),
    *("num_classes", "num_things_classes", "num_stuff_classes"),
)
"""Top-level fields of the original that its other fields repeat, or that say nothing."""

LOWERED = ("ADE20KDataset", "PascalContextDataset59", "NYUDepthV2Dataset")
"""Data sets whose classes start at a mask's 1."""

PACKING = ("Normalize", "Pad", "ToMask", "DefaultFormatBundle", "ImageToTensor", "Collect")
"""Steps that the model does today, or that have no counterpart in a config."""

# A default that some of the original's configs write out.
PARAMWISE_DEFAULTS = {"offset_lr_scale": 1.0}


# Of the task's configs by name, such as ade20k/upernet_internimage_t_512_160k_ade20k.
load_originals = functools.partial(shared.load_originals, "segmentation")
load_current = functools.partial(shared.load_current, CONFIGS)
build_without_storage = functools.partial(shared.build_without_storage, CONFIGS)


def original_facts(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a config of the original decides."""
    config = {key: copy.deepcopy(v) for key, v in config.items() if key not in REPEATED}
    data, optimizer = config.pop("data"), config.pop("optimizer")
    schedule, runner = config.pop("lr_config"), config.pop("runner")
    evaluation, saving = config.pop("evaluation"), config.pop("checkpoint_config")
    assert schedule.pop("policy") == "poly" and schedule.pop("warmup") == "linear"
    assert not schedule.pop("by_epoch") and not saving.pop("by_epoch")
    assert runner == {"type": "IterBasedRunner", "max_iters": runner["max_iters"]}
    assert evaluation.pop("pre_eval")  # scores are kept, not whole maps: IoUMetric does no other
    norm = _original_norm(data["train"]["pipeline"])
    facts: dict[str, Any] = {
        "batch_size": data.pop("samples_per_gpu"),
        "workers": data.pop("workers_per_gpu"),
        "train": _original_dataset(data.pop("train")),
        "val": _original_dataset(data.pop("val")),
        "test": _original_dataset(data.pop("test")),
        "constructor": optimizer.pop("constructor"),
        "paramwise": PARAMWISE_DEFAULTS | optimizer.pop("paramwise_cfg"),
        "optimizer": optimizer,
        "clip_grad": config.pop("optimizer_config").get("grad_clip"),
        "warmup": {"steps": schedule.pop("warmup_iters"), "from": schedule.pop("warmup_ratio")},
        "decay": {
            "steps": runner["max_iters"],
            "power": schedule.pop("power"),
            "to": schedule.pop("min_lr"),
        },
        "length": runner["max_iters"],
        "val_interval": evaluation.pop("interval"),
        "metric": [evaluation.pop("metric")],
        "save": {
            "interval": saving.pop("interval"),
            "keep": saving.pop("max_keep_ckpts"),
            "last": True,
            "best": evaluation.pop("save_best"),
        },
        "log_interval": config.pop("log_config")["interval"],
        "backend": config.pop("dist_params")["backend"],
        "cudnn_benchmark": config.pop("cudnn_benchmark"),
        "load_from": config.pop("load_from"),
        "model": _original_model(config.pop("model")) | {"data_preprocessor": norm},
    }
    config.pop("data_root")  # each data set has one of its own
    for what, fields in {"data": data, "lr_config": schedule, "evaluation": evaluation}.items():
        taken(fields, what)
    taken(saving, "checkpoint_config")
    taken(config, "config")
    return _without_empty(flatten(facts))


def current_facts(config: Config) -> dict[str, Any]:
    """Return what a config of ours decides."""
    cfg = config.to_dict()
    wrapper = cfg["optim_wrapper"]
    warmup, decay = cfg["param_scheduler"]
    for scheduler, kind in ((warmup, "LinearLR"), (decay, "PolyLR")):
        assert (scheduler["type"], scheduler["by_epoch"], scheduler["begin"]) == (kind, False, 0)
    loop, loader = cfg["train_cfg"], cfg["train_dataloader"]
    assert loop["type"] == "IterBasedTrainLoop" and not cfg["log_processor"]["by_epoch"]
    saving = cfg["default_hooks"]["checkpoint"]
    assert not saving["by_epoch"]
    facts: dict[str, Any] = {
        "batch_size": loader["batch_size"],
        "workers": loader["num_workers"],
        "train": _current_dataset(loader["dataset"], cfg),
        "val": _current_dataset(cfg["val_dataloader"]["dataset"], cfg),
        "test": _current_dataset(cfg["test_dataloader"]["dataset"], cfg, tta=cfg.get("tta")),
        "constructor": wrapper["constructor"],
        "paramwise": PARAMWISE_DEFAULTS | current_paramwise(cfg),
        "optimizer": wrapper["optimizer"],
        "clip_grad": wrapper.get("clip_grad"),
        "warmup": {"steps": warmup["end"] - 1, "from": warmup["start_factor"]},
        "decay": {
            "steps": decay["end"] - 1,
            "power": decay["power"],
            "to": decay["eta_min"],
        },
        "length": loop["max_iters"],
        "val_interval": loop["val_interval"],
        "metric": cfg["val_evaluator"]["iou_metrics"],
        "save": {
            "interval": saving["interval"],
            "keep": saving["max_keep_ckpts"],
            "last": saving["save_last"],
            "best": saving["save_best"],
        },
        "log_interval": cfg["default_hooks"]["logger"]["interval"],
        "backend": cfg["env_cfg"]["dist_cfg"]["backend"],
        "cudnn_benchmark": cfg["env_cfg"]["cudnn_benchmark"],
        "load_from": cfg["load_from"],
        "model": _current_model(cfg["model"]),
    }
    return _without_empty(flatten(facts))


def _without_empty(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts without what some configs of the original set to the default of None."""
    return {
        key: value
        for key, value in facts.items()
        if value is not None or not key.endswith((".init_cfg", ".norm_cfg"))
    }


def _original_model(model: dict[str, Any]) -> dict[str, Any]:
    facts = original_backbone(model["backbone"])
    # Neither is what the defaults of both say.
    facts["backbone"].setdefault("out_indices", [0, 1, 2, 3])
    current = to_current(model)
    current.pop("init_cfg", None)
    return current | facts


def _current_model(model: dict[str, Any]) -> dict[str, Any]:
    norm = model["data_preprocessor"]
    assert norm.pop("type") == "SegDataPreProcessor"
    return model | current_backbone(model.pop("backbone"))


def _original_norm(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the model does today to the images of one of the original's pipelines."""
    (norm,) = (step for step in steps if step["type"] == "Normalize")
    (pad,) = (step for step in steps if step["type"] == "Pad")
    return {
        "mean": norm["mean"],
        "std": norm["std"],
        "bgr_to_rgb": norm["to_rgb"],
        **{key: pad[key] for key in ("size", "pad_val", "seg_pad_val")},
    }


def _original_dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    steps = dataset.pop("pipeline")
    kind = dataset.pop("type")
    lowered = dataset.pop("reduce_zero_label", kind in LOWERED)
    training = steps[1]["type"] == "LoadAnnotations"
    if training:
        assert steps[1].get("reduce_zero_label", False) == lowered
    if kind == "MapillaryDataset":
        assert steps.pop(2) == {"type": "MapillaryHack"}
        kind = "MapillaryToCityscapesDataset"
    root = dataset.pop("data_root")
    facts = {
        "type": kind,
        "images": _paths(root, dataset.pop("img_dir")),
        "masks": _paths(root, dataset.pop("ann_dir")),
        "list": _paths(root, dataset.pop("split", [])),
        "reduce_zero_label": lowered,
    }
    taken(dataset, "dataset")
    return facts | (_original_training(steps) if training else _original_views(steps))


def _paths(root: str, paths: str | list[str]) -> list[str]:
    paths = [paths] if isinstance(paths, str) else paths
    return [os.path.normpath(os.path.join(root, path)) for path in paths]


def _original_training(steps: list[dict[str, Any]]) -> dict[str, Any]:
    pipeline = []
    for step in steps:
        kind = step["type"]
        if kind == "LoadAnnotations":
            pipeline.append({"type": kind})
        elif kind == "Resize":
            assert step.keys() == {"type", "img_scale", "ratio_range"}
            pipeline.append(
                {
                    "type": "RandomResize",
                    "scale": step["img_scale"],
                    "ratio_range": step["ratio_range"],
                    "keep_ratio": True,
                }
            )
        elif kind not in PACKING:
            pipeline.append(step)
    return {"pipeline": pipeline}


def _original_views(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sizes at which an image is tested, and what else is done to it."""
    load, views = steps
    assert load == {"type": "LoadImageFromFile"} and views.pop("type") == "MultiScaleFlipAug"
    width, height = views.pop("img_scale")
    ratios = views.pop("img_ratios", [1.0])
    resize, *rest = views.pop("transforms")
    assert resize == {"type": "Resize", "keep_ratio": True}
    mirrored = views.pop("flip")
    taken(views, "MultiScaleFlipAug")
    rest = [step for step in rest if step["type"] not in (*PACKING, "RandomFlip")]
    return {
        "scales": [[int(width * ratio), int(height * ratio)] for ratio in ratios],
        "mirrored": mirrored,
        "pipeline": rest,
    }


def _current_dataset(
    dataset: dict[str, Any], config: dict[str, Any], *, tta: bool | None = None
) -> dict[str, Any]:
    parts = dataset.get("datasets", [dataset])
    first = parts[0]
    same = ("type", "pipeline", "data_root", "reduce_zero_label")
    assert all(part.get(key) == first.get(key) for part in parts for key in same)
    root = first["data_root"]
    facts = {
        "type": first["type"],
        "images": _paths(root, [part["data_prefix"]["img_path"] for part in parts]),
        "masks": _paths(root, [part["data_prefix"]["seg_map_path"] for part in parts]),
        "list": _paths(root, [part["ann_file"] for part in parts if "ann_file" in part]),
        "reduce_zero_label": first.get("reduce_zero_label", False),
    }
    if dataset is config["train_dataloader"]["dataset"]:
        *steps, pack = first["pipeline"]
        assert pack == {"type": "PackSegInputs"}
        assert steps[2]["type"] == "CheckSegMap"
        return facts | {"pipeline": [*steps[:2], *steps[3:]]}
    if tta:
        scales, mirrored, rest = current_views(config["tta_pipeline"])
        return facts | {"scales": scales, "mirrored": mirrored, "pipeline": rest}
    load, resize, *rest, annotations, check, pack = first["pipeline"]
    loaded = [step["type"] for step in (load, annotations, check, pack)]
    assert loaded == ["LoadImageFromFile", "LoadAnnotations", "CheckSegMap", "PackSegInputs"]
    assert resize == {"type": "Resize", "scale": resize["scale"], "keep_ratio": True}
    return facts | {"scales": [list(resize["scale"])], "mirrored": False, "pipeline": rest}


def current_views(
    pipeline: list[dict[str, Any]],
) -> tuple[list[list[int]], bool, list[dict[str, Any]]]:
    """Return the sizes of an augmented test, if it also mirrors, and what else it does."""
    load, views = pipeline
    assert load == {"type": "LoadImageFromFile"} and views["type"] == "TestTimeAug"
    resizes, *rest, flips, annotations, check, pack = views["transforms"]
    assert all(step["type"] == "Resize" and step["keep_ratio"] for step in resizes)
    assert [step["prob"] for step in flips] == [0.0, 1.0]
    loaded = [step["type"] for (step,) in (annotations, check, pack)]
    assert loaded == ["LoadAnnotations", "CheckSegMap", "PackSegInputs"]
    return [list(step["scale"]) for step in resizes], True, [step for (step,) in rest]
