"""What a detector's config decides, see ``tests/config_facts.py``."""

from __future__ import annotations

import copy
import functools
import os.path
from typing import Any

from mmengine.config import Config

from tests import config_facts as shared
from tests.config_facts import ROOT, current_paramwise, flatten, taken
from tests.detection.config_facts_models import current_model, original_model

CONFIGS = ROOT / "detection" / "configs"

REPEATED = (*shared.REPEATED, "classes")
"""Top-level fields of the original that its other fields repeat, or that say nothing."""

BEST = {
    "CocoDataset": "coco/bbox_mAP",
    "VOCDataset": "pascal_voc/mAP",
    "OpenImagesDataset": "openimages/mAP",
    "CrowdHumanDataset": "crowd_human/mAP",
}
"""What "auto" chose as the figure that decides which checkpoint is best."""

WRAPPERS = ("ClassBalancedDataset", "RepeatDataset", "ConcatDataset")


# Of the task's configs by name, such as coco/mask_rcnn_internimage_t_fpn_1x_coco.
load_originals = functools.partial(shared.load_originals, "detection")
load_current = functools.partial(shared.load_current, CONFIGS)
build_without_storage = functools.partial(shared.build_without_storage, CONFIGS)


def original_facts(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a config of the original decides."""
    config = {key: copy.deepcopy(v) for key, v in config.items() if key not in REPEATED}
    data = config.pop("data")
    model = config.pop("model")
    optimizer = config.pop("optimizer")
    schedule = config.pop("lr_config")
    runner = config.pop("runner")
    evaluation = config.pop("evaluation")
    saving = config.pop("checkpoint_config")
    by_epoch = runner["type"] == "EpochBasedRunner"
    assert schedule.pop("policy") == "step" and schedule.pop("warmup") == "linear"
    sampler = data.pop("train_dataloader", {"class_aware_sampler": None})["class_aware_sampler"]
    norm = _original_norm(_steps(data["train"]))
    assert norm | {"pad_mask": False} == _original_norm(_steps(data["test"]))
    train = _original_dataset(data.pop("train"))
    facts: dict[str, Any] = {
        "data_root": os.path.normpath(config.pop("data_root")),
        "batch_size": data.pop("samples_per_gpu"),
        "workers": data.pop("workers_per_gpu"),
        "class_aware": sampler["num_sample_class"] if sampler else None,
        "train": train,
        "val": _original_dataset(data.pop("val")),
        "test": _original_dataset(data.pop("test")),
        "constructor": optimizer.pop("constructor", "DefaultOptimWrapperConstructor"),
        "paramwise": optimizer.pop("paramwise_cfg"),
        "optimizer": optimizer,
        "clip_grad": config.pop("optimizer_config")["grad_clip"],
        "warmup": {"steps": schedule.pop("warmup_iters"), "from": schedule.pop("warmup_ratio")},
        "decay_after": schedule.pop("step"),
        "by_epoch": by_epoch,
        "length": runner["max_epochs" if by_epoch else "max_iters"],
        "val_interval": evaluation.pop("interval", 1),
        "metric": evaluation.pop("metric"),
        "classwise": evaluation.pop("classwise", False),
        "save": {
            "interval": saving.pop("interval"),
            "keep": saving.pop("max_keep_ckpts"),
            "last": saving.pop("save_last", True),
            "best": BEST[train["type"]] if evaluation.pop("save_best", None) else None,
        },
        "log_interval": config.pop("log_config")["interval"],
        "backend": config.pop("dist_params")["backend"],
        "load_from": config.pop("load_from"),
        "hooks": [_original_hook(hook) for hook in config.pop("custom_hooks")],
        "model": original_model(model) | {"data_preprocessor": norm},
    }
    for what, fields in {"data": data, "lr_config": schedule, "evaluation": evaluation}.items():
        taken(fields, what)
    taken(saving, "checkpoint_config")
    taken(config, "config")
    return flatten(facts)


def current_facts(config: Config) -> dict[str, Any]:
    """Return what a config of ours decides."""
    cfg = config.to_dict()
    wrapper = cfg["optim_wrapper"]
    warmup, *decays = cfg["param_scheduler"]
    assert warmup["type"] == "LinearLR" and not warmup["by_epoch"] and not warmup["begin"]
    loop = cfg["train_cfg"]
    by_epoch = loop["type"] == "EpochBasedTrainLoop"
    length = loop["max_epochs" if by_epoch else "max_iters"]
    for decay in decays:
        assert decay["type"] == "MultiStepLR" and decay["by_epoch"] and decay["gamma"] == 0.1
        assert (decay["begin"], decay["end"]) == (0, length)
    loader = cfg["train_dataloader"]
    saving = cfg["default_hooks"]["checkpoint"]
    assert saving.get("by_epoch", True) == cfg["log_processor"]["by_epoch"] == by_epoch
    facts: dict[str, Any] = {
        "data_root": os.path.normpath(cfg["data_root"]),
        "batch_size": loader["batch_size"],
        "workers": loader["num_workers"],
        "class_aware": loader["sampler"].get("num_sample_class"),
        "train": _current_dataset(loader["dataset"]),
        "val": _current_dataset(cfg["val_dataloader"]["dataset"]),
        "test": _current_dataset(cfg["test_dataloader"]["dataset"]),
        "constructor": wrapper["constructor"],
        "paramwise": current_paramwise(cfg),
        "optimizer": wrapper["optimizer"],
        "clip_grad": wrapper.get("clip_grad"),
        "warmup": {"steps": warmup["end"], "from": warmup["start_factor"]},
        "decay_after": decays[0]["milestones"] if decays else [],
        "by_epoch": by_epoch,
        "length": length,
        "val_interval": loop["val_interval"],
        "metric": cfg["val_evaluator"].get("metric", "mAP"),
        "classwise": cfg["val_evaluator"].get("classwise", False),
        "save": {
            "interval": saving["interval"],
            "keep": saving["max_keep_ckpts"],
            "last": saving["save_last"],
            "best": saving["save_best"],
        },
        "log_interval": cfg["default_hooks"]["logger"]["interval"],
        "backend": cfg["env_cfg"]["dist_cfg"]["backend"],
        "load_from": cfg["load_from"],
        "hooks": cfg.get("custom_hooks", {}),
        "model": current_model(cfg["model"]),
    }
    return flatten(facts)


def _original_hook(hook: dict[str, Any]) -> dict[str, Any]:
    if hook["type"] != "ExpMomentumEMAHook":
        return hook
    # It averaged batch norm's statistics as well, with the momentum of YOLOX.
    fields = {"type": "EMAHook", "ema_type": "ExpMomentumEMA", "update_buffers": True}
    return fields | {key: hook[key] for key in ("momentum", "priority")}


def _steps(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pipeline of the innermost data set: a wrapper's had no effect."""
    return _steps(dataset["dataset"]) if "dataset" in dataset else dataset["pipeline"]


def _original_dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of the innermost data set, with what wraps it as ``wrapped``."""
    wrapped = []
    while dataset["type"] in WRAPPERS:
        wrapped.append({k: v for k, v in dataset.items() if k in ("type", "oversample_thr")})
        wrapped[-1] |= {"times": dataset["times"]} if "times" in dataset else {}
        dataset = dataset["dataset"]
    paths, prefixes = dataset.pop("ann_file"), dataset.pop("img_prefix")
    if isinstance(paths, list):
        wrapped.append({"type": "ConcatDataset"})
    steps = dataset.pop("pipeline")
    dataset.pop("classes", None)  # CrowdHuman's, which its class has
    training = steps[1]["type"] != "MultiScaleFlipAug"
    facts: dict[str, Any] = {
        "type": dataset.pop("type"),
        "ann_files": _paths(paths),
        "prefixes": _paths(prefixes),
    }
    if training:
        facts["filter"] = {"filter_empty_gt": dataset.pop("filter_empty_gt", True), "min_size": 32}
    if wrapped:
        facts["wrapped"] = wrapped
    for key in [key for key in dataset if key.endswith("_file")]:
        facts[key] = os.path.normpath(dataset.pop(key))
    taken(dataset, "dataset")
    return facts | {"pipeline": original_pipeline(steps)}


def _current_dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    wrapped = []
    parts = [dataset]
    while parts[0]["type"] in WRAPPERS:
        keep = ("type", "oversample_thr", "times")
        wrapped.append({k: v for k, v in parts[0].items() if k in keep})
        parts = parts[0].get("datasets") or [parts[0]["dataset"]]
    first = parts[0]
    assert all(part["pipeline"] == first["pipeline"] for part in parts)
    paths, prefixes = [], []
    for part in parts:
        (prefix,) = part["data_prefix"].values()
        paths.append(part["data_root"] + part["ann_file"])
        prefixes.append(part["data_root"] + prefix)
    facts: dict[str, Any] = {
        "type": first["type"],
        "ann_files": _paths(paths),
        "prefixes": _paths(prefixes),
    }
    if not first.get("test_mode"):
        facts["filter"] = first.get("filter_cfg", {})
    if wrapped:
        facts["wrapped"] = wrapped
    for key in [key for key in first if key.endswith("_file") and key != "ann_file"]:
        facts[key] = os.path.normpath(first["data_root"] + first[key])
    training = not first.get("test_mode")
    return facts | {"pipeline": _current_pipeline(first["pipeline"], training=training)}


def _paths(paths: str | list[str]) -> list[str]:
    return [os.path.normpath(path) for path in ([paths] if isinstance(paths, str) else paths)]


def original_pipeline(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps of one of the original's pipelines that a data set still has."""
    steps = copy.deepcopy(steps)
    if steps[1]["type"] == "MultiScaleFlipAug":
        load, views = steps
        assert not views["flip"] and views["transforms"][1]["type"] == "RandomFlip"
        resize, _, *rest = views["transforms"]
        steps = [load, dict(resize, img_scale=views["img_scale"]), *rest]
    gone = ("Normalize", "Pad", "DefaultFormatBundle", "ImageToTensor", "Collect")
    return [_original_step(step.pop("type"), step) for step in steps if step["type"] not in gone]


def _original_step(kind: str, step: dict[str, Any]) -> dict[str, Any]:
    if kind == "RandomFlip":
        return {"type": kind, "prob": step["flip_ratio"]}
    if kind == "AutoAugment":
        policies = [[_original_step(s.pop("type"), s) for s in p] for p in step["policies"]]
        return {"type": "RandomChoice", "transforms": policies}
    if kind != "Resize":
        return {"type": kind} | step
    step.pop("override", None)  # of a scale that an earlier step drew: today's always draws
    scales = step.pop("img_scale")
    mode = step.pop("multiscale_mode", None)
    field = {None: "scale", "value": "scales", "range": "scale"}[mode]
    kind = {None: "Resize", "value": "RandomChoiceResize", "range": "RandomResize"}[mode]
    return {"type": kind, field: scales} | step


def _original_norm(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the model does today to the images of one of the original's pipelines."""
    steps = steps[1]["transforms"] if steps[1]["type"] == "MultiScaleFlipAug" else steps
    norm = next(step for step in steps if step["type"] == "Normalize")
    (divisor,) = (step["size_divisor"] for step in steps if step["type"] == "Pad")
    return {
        "mean": norm["mean"],
        "std": norm["std"],
        "bgr_to_rgb": norm["to_rgb"],
        "pad_size_divisor": divisor,
        "pad_mask": any("gt_masks" in step.get("keys", ()) for step in steps),
    }


def _current_pipeline(steps: list[dict[str, Any]], *, training: bool) -> list[dict[str, Any]]:
    *steps, pack = steps
    assert pack["type"] == "PackDetInputs"
    if not training:  # the original did not load annotations for a test: they are to be drawn
        steps = [step for step in steps if step["type"] != "LoadAnnotations"]
    return steps
