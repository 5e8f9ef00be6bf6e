"""What the flags of a test.py change in a config: metrics, files, pictures, augmentation."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import is_model_wrapper
from torch import nn

from internimage.integrations.openmmlab.scripts import own_masks
from internimage.integrations.openmmlab.scripts.config_parts import (
    DRIVING,
    is_driving,
    leaf_datasets,
    task_of,
    type_name,
)

# Metrics by their type: the argument that says what to measure, and what it may be.
MEASURES = {
    "CocoMetric": ("metric", ("bbox", "segm", "proposal", "proposal_fast")),
    "LVISMetric": ("metric", ("bbox", "segm", "proposal", "proposal_fast")),
    "VOCMetric": ("metric", ("mAP", "recall")),
    "CrowdHumanMetric": ("metric", ("AP", "MR", "JI")),
    "IoUMetric": ("iou_metrics", ("mIoU", "mDice", "mFscore")),
}
CITYSCAPES = "cityscapes"
"""A measure that is a metric of its own: that of the data set's authors."""

LAX_OPTIONS = {
    "IoUMetric": ("ignore_index", "nan_to_num", "beta", "prefix", "output_dir", "iou_metrics"),
    "CityscapesMetric": ("ignore_index", "prefix", "output_dir", "keep_results"),
}
"""Arguments of metrics that take any other without a word."""

# Those that can write files instead, and the argument that says where.
FORMATS = {
    "CocoMetric": "outfile_prefix",
    "LVISMetric": "outfile_prefix",
    "IoUMetric": "output_dir",
    "CityscapesMetric": "output_dir",
    "OccupancyMetric": "output_dir",
    "OpenLaneMetric": "output_dir",
    "VectorMapMetric": "output_dir",
}
DUMPS = {
    "detection": "DumpDetResults",
    "segmentation": "DumpLabelMaps",
    DRIVING: "DumpDrivingResults",
}
OF_CLASSES = {
    "IoUMetric": "IoUMetricOfClasses",
    "CityscapesMetric": "CityscapesMetricOfClasses",
}
"""Metrics that write label maps, and those whose files have classes alone."""

LABELS_ALONE = frozenset({*OF_CLASSES, *OF_CLASSES.values(), "DumpLabelMaps"})
"""Metrics of label maps: the scores behind these are not kept for them."""

WINDOWS = {"mmdet": "DetVisualizationHook", "mmseg": "SegVisualizationHook"}
PICTURES = "DrivingPicturesHook"
SCORE_THRESHOLD = 0.3  # both are the original's defaults
OPACITY = 0.5


def apply_arguments(config: Config, args: argparse.Namespace) -> None:
    """Write what the flags say into the config.

    Raises:
        ValueError: A flag needs something that the config does not have, or has a wrong value.
    """
    if config.get("test_dataloader") is None or config.get("test_evaluator") is None:
        raise ValueError(
            f"expected test_dataloader and test_evaluator in {args.config}, got "
            f"{config.get('test_dataloader')} and {config.get('test_evaluator')}"
        )
    # Beside the training's records, which have the same names.
    default = Path("work_dirs") / Path(args.config).stem / "test"
    config.work_dir = args.work_dir or str(default)
    config.load_from, config.resume = args.checkpoint, False
    # A checkpoint with a moving average has it under the names of the weights already.
    hooks = [hook for hook in config.get("custom_hooks") or [] if type_name(hook) != "EMAHook"]
    config.custom_hooks = hooks
    if args.eval:
        _measure(config, args.eval)
    if args.format_only:
        _write_only(config)
    _check_options(config, args.eval_options)
    # Before --out, whose metric takes no such options.
    for metric in _metrics(config):
        known = LAX_OPTIONS.get(_kind(metric), args.eval_options)
        metric.update({key: args.eval_options[key] for key in args.eval_options if key in known})
        if args.gpu_collect:
            metric["collect_device"] = "gpu"
        if args.tmpdir:
            metric["collect_device"], metric["collect_dir"] = "cpu", args.tmpdir
    if args.out:
        _dump(config, args.out)
    _leave_out_other_outputs(config)
    if args.show or args.show_dir:
        _draw(config, args)
    _warn_of_drawing(config, args)
    if args.tta or config.get("tta"):
        _augment(config, args.config)
    # Last: --tta has given the data sets other pipelines.
    if args.format_only and own_masks.is_semantic(config):
        own_masks.leave_out_masks(config, "test_dataloader")


def leave_out_scores(model: nn.Module, evaluator: Any) -> None:
    """Let a segmentor predict labels alone where nobody looks at the scores of all classes.

    They are up to 600 bytes a pixel for 150 classes. The config stays as it is: what is built from
    it another time may need them.

    Args:
        model: Changed in place; one behind test-time augmentation needs its scores.
        evaluator: The config of the metrics, one or several.
    """
    segmentor: Any = model.module if is_model_wrapper(model) else model
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    if type(segmentor).__name__ == "InternImageSegmentor" and all(
        isinstance(metric, dict) and type_name(metric) in LABELS_ALONE for metric in metrics
    ):
        segmentor.test_cfg = ConfigDict(segmentor.test_cfg or {}, keep_scores=False)


def _metrics(config: Config) -> Iterator[dict[str, Any]]:
    metrics = config.test_evaluator
    yield from metrics if isinstance(metrics, (list, tuple)) else [metrics]


def _measure(config: Config, wanted: list[str]) -> None:
    if CITYSCAPES in wanted and own_masks.is_semantic(config):
        wanted = [name for name in wanted if name != CITYSCAPES]
        others = list(_metrics(config)) if wanted else []
        config.test_evaluator = [*others, _cityscapes(config)]
        if not wanted:
            return
    known = {name for kind in _kinds(config) for name in MEASURES.get(kind, ("", ()))[1]}
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"expected --eval {' or '.join(sorted(known)) or 'nothing'} for "
            f"{', '.join(_kinds(config))}, got {' '.join(unknown)}"
        )
    for metric in _metrics(config):
        argument, names = MEASURES.get(_kind(metric), ("", ()))
        chosen = [name for name in wanted if name in names]
        if chosen:
            metric[argument] = chosen[0] if _kind(metric) == "VOCMetric" else chosen


def _cityscapes(config: Config) -> dict[str, Any]:
    if importlib.util.find_spec("cityscapesscripts") is None:
        raise ValueError(
            "expected cityscapesscripts for --eval cityscapes, got none; "
            "pip install cityscapesscripts"
        )
    # A folder of its own: the metric removes what it does not keep, the folder itself as well.
    folder = str(Path(config.work_dir) / CITYSCAPES)
    return {"type": "CityscapesMetric", "output_dir": folder, "keep_results": True}


def _check_options(config: Config, options: dict[str, Any]) -> None:
    kinds = _kinds(config)
    if not set(kinds) <= set(LAX_OPTIONS):
        return  # the others refuse an unknown argument when they are built
    known = {name: None for kind in kinds for name in LAX_OPTIONS[kind]}
    if unknown := [name for name in options if name not in known]:
        raise ValueError(
            f"expected --eval-options of {' and '.join(kinds)} ({', '.join(known)}), got "
            f"{unknown[0]}"
        )


def _write_only(config: Config) -> None:
    writers = [metric for metric in _metrics(config) if _kind(metric) in FORMATS]
    if not writers:
        raise ValueError(
            f"expected a metric that writes files ({', '.join(FORMATS)}) for --format-only, got "
            f"{', '.join(_kinds(config))}"
        )
    for metric in writers:
        metric["format_only"] = True
        metric.setdefault(FORMATS[_kind(metric)], str(Path(config.work_dir) / "results"))
        if _kind(metric) == "CityscapesMetric":
            metric["keep_results"] = True  # it removes its files otherwise, and refuses to be made
    config.test_evaluator = writers


def _dump(config: Config, path: str) -> None:
    if not path.endswith((".pkl", ".pickle")):
        raise ValueError(f"expected --out *.pkl, got {path}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    kind = DUMPS.get(task_of(config) or "", "DumpResults")
    if own_masks.is_semantic(config):
        _register_label_maps()
    config.test_evaluator = [*_metrics(config), {"type": kind, "out_file_path": path}]


def _leave_out_other_outputs(config: Config) -> None:
    """Let metrics that write label maps write classes alone, see ``label_maps``."""
    for metric in _metrics(config):
        if _kind(metric) in OF_CLASSES and metric.get("output_dir"):
            _register_label_maps()
            metric["type"] = OF_CLASSES[_kind(metric)]
            metric["image_dirs"] = _image_dirs(config)


def _draw(config: Config, args: argparse.Namespace) -> None:
    scope = config.get("default_scope")
    if scope not in WINDOWS:
        raise ValueError(f"expected default_scope {' or '.join(WINDOWS)} to draw, got {scope}")
    # mmdet joins test_out_dir to its folder of logs: only a whole path is left as it is.
    folder = str(Path(args.show_dir).resolve()) if args.show_dir else None
    if is_driving(config):
        _draw_frames(config, args, folder)
        return
    hook: dict[str, Any] = {"type": WINDOWS[scope], "draw": True, "interval": 1}
    hook["show"] = bool(args.show)
    if scope == "mmdet":
        hook["score_thr"] = SCORE_THRESHOLD if args.show_score_thr is None else args.show_score_thr
        hook["test_out_dir"] = folder
        if folder is not None:
            importlib.import_module("internimage.integrations.openmmlab.scripts.box_pictures")
            hook |= {"type": "BoxPicturesHook", "image_dirs": _image_dirs(config)}
    opacity = OPACITY if args.opacity is None else args.opacity
    hooks = config.setdefault("default_hooks", {})
    if scope == "mmdet" or args.show:
        hooks["visualization"] = hook
    if scope == "mmseg":
        config.setdefault("visualizer", {}).setdefault("type", "SegLocalVisualizer")
        config.visualizer.alpha = opacity  # mmseg's hook has no such argument
        if folder is not None:
            _register_label_maps()
            hooks["overlay"] = {
                "type": "OverlayHook",
                "out_dir": folder,
                "opacity": opacity,
                "image_dirs": _image_dirs(config),
            }


def _draw_frames(config: Config, args: argparse.Namespace, folder: str | None) -> None:
    if folder is None or args.show:
        raise ValueError("expected --show-dir DIR for frames of several cameras, got --show")
    hook: dict[str, Any] = {"type": PICTURES, "out_dir": folder, "num_frames": None}
    if args.show_score_thr is not None:
        hook["score_threshold"] = args.show_score_thr
    others = [hook for hook in config.custom_hooks if hook.get("type") != PICTURES]
    config.custom_hooks = [*others, hook]


def _register_label_maps() -> None:
    """Import what needs mmseg, which scripts of detectors do without."""
    importlib.import_module("internimage.integrations.openmmlab.scripts.label_maps")


def _warn_of_drawing(config: Config, args: argparse.Namespace) -> None:
    others = {"mmseg": ("show_score_thr", "boxes"), "mmdet": ("opacity", "label maps")}
    name, things = others.get(str(config.get("default_scope")), ("", ""))
    drawn = args.show or args.show_dir  # without, the parser has said that nothing is
    if name and drawn and getattr(args, name) is not None:
        flag = name.replace("_", "-")
        warnings.warn(f"--{flag} has no effect: it is about {things}", stacklevel=3)


def _augment(config: Config, path: str) -> None:
    for key in ("tta_model", "tta_pipeline"):
        if config.get(key) is None:
            raise ValueError(
                f"expected {key} in {path} for --tta, got none; {_where_views_are(config)}"
            )
    if type_name(config.tta_model) == "DetTTAModel" and _has_masks(config.get("model")):
        raise ValueError(
            f"expected a detector of boxes alone for --tta, got {path} with a mask_head: mmdet "
            "cannot merge masks"
        )
    config.model = {**config.tta_model, "module": config.model}
    for _, leaf in leaf_datasets(config, "test_dataloader"):
        leaf["pipeline"] = config.tta_pipeline


def _where_views_are(config: Config) -> str:
    if is_driving(config):
        return "there is nothing to augment in frames of several cameras"
    if own_masks.is_semantic(config):
        return "the bases of data sets and _base_/default_runtime.py have it"
    return "a config of dino_4scale_*_tta.py, or _base_/tta.py, has it"


def _has_masks(node: Any) -> bool:
    if isinstance(node, (list, tuple)):
        return any(map(_has_masks, node))
    if not isinstance(node, dict):
        return False
    return node.get("mask_head") is not None or any(map(_has_masks, node.values()))


def _kinds(config: Config) -> list[str]:
    return [_kind(metric) for metric in _metrics(config)]


def _kind(metric: dict[str, Any]) -> str:
    """Return the type of a metric, without its library and under its name in that."""
    return type_name(metric).removesuffix("OfClasses")


def _image_dirs(config: Config) -> list[str]:
    """Return the folders of images of the test set, as its images' paths begin."""
    folders = []
    for _, leaf in leaf_datasets(config, "test_dataloader"):
        prefixes = leaf.get("data_prefix") or {}
        prefix = prefixes.get("img_path") or prefixes.get("img") or ""
        folders.append(str(Path(leaf.get("data_root") or "", prefix)))
    return folders
