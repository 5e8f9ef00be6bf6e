"""What the subcommands of ``internimage`` do; :mod:`internimage.cli` has their arguments."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from internimage.answers import print_labels
from internimage.checkpoint import load_weights, read_checkpoint, save_checkpoint
from internimage.checkpoint_layouts import count_classes
from internimage.complexity import count_complexity
from internimage.factory import create_model, list_models
from internimage.hub import HUB_URL, PTH_REPOSITORY, RELEASED, find_release
from internimage.metadata import Preprocessing
from internimage.predict import Predictor, build_predictor, read_class_names
from internimage.runtime.command import report
from internimage.variants import get_variant, list_variants


def run_list(options: argparse.Namespace) -> int:
    """Print released models and sizes."""
    names = list_models(options.pattern)
    if options.json:
        rows = [dataclasses.asdict(RELEASED[name]) for name in names]
        print(json.dumps({"models": rows, "sizes": list_variants()}, indent=2))
        return 0
    print(f"{'model':<32}{'pixels':>7}{'classes':>9}{'top-1 %':>9}  pre-training")
    for name in names:
        release = RELEASED[name]
        top1 = "-" if release.top1 is None else f"{release.top1:.1f}"
        print(
            f"{name:<32}{release.image_size:>7}{release.num_classes:>9}{top1:>9}"
            f"  {release.pretraining}"
        )
    print(f"sizes: {', '.join(list_variants())}")
    return 0


def run_info(options: argparse.Namespace) -> int:
    """Print what a model is and costs."""
    release = find_release(options.name)
    with torch.device("meta"):
        model = create_model(options.name)
    variant_name = options.name if release is None else release.variant
    variant = get_variant(variant_name)
    usual_size = variant.image_size if release is None else release.image_size
    size = Preprocessing(image_size=options.image_size or usual_size).image_size
    cost = count_complexity(model, size)
    facts: dict[str, Any] = {"name": options.name, "size": variant_name}
    facts |= {f"size.{key}": value for key, value in dataclasses.asdict(variant).items()}
    facts |= {
        "num_classes": model.num_classes,
        "image_size": size,
        "parameters": cost.parameters,
        "gmacs": round(cost.macs / 1e9, 3),
        "sampling_gops": round(cost.sampling / 1e9, 3),
    }
    if release is not None:
        facts |= {
            "pretraining": release.pretraining,
            "published_top1_percent": release.top1,
            "pth": f"{HUB_URL}/{PTH_REPOSITORY}/resolve/main/{release.pth_file}",
            "safetensors": None
            if release.repository is None
            else f"{HUB_URL}/{release.repository}",
            "sha256": "none was published",
        }
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    for key, value in facts.items():
        print(f"{key:<34}{'-' if value is None else value}")
    return 0


def run_predict(options: argparse.Namespace) -> int:
    """Classify images, each as it is read; one that cannot be read costs the others nothing."""
    names = () if options.class_names is None else read_class_names(options.class_names)
    predictor = _predictor(options, class_names=names)
    answers: list[dict[str, Any]] = []
    head = (
        f"{predictor.model_name}, {predictor.preprocessing.image_size} px\n"
        f"weights: {predictor.weights}"
    )
    exit_code = 0
    for image in options.images:
        try:
            labels = predictor.classify(predictor.prepare(image), options.topk)[0]
        except (ValueError, OSError) as error:
            exit_code = report(f"internimage {options.command}", error)
            answers.append({"image": image, "error": str(error)})
            continue
        answers.append({"image": image, "labels": [dataclasses.asdict(label) for label in labels]})
        if not options.json:
            if head:
                print(head)
                head = ""
            print_labels(image, labels)
    if options.json:
        content = {
            "model": predictor.model_name,
            "weights": predictor.weights,
            "random_weights": options.random_weights,
            "image_size": predictor.preprocessing.image_size,
            "images": answers,
        }
        print(json.dumps(content, indent=2, allow_nan=False))
    elif not head and not predictor.class_names:
        print("\nNo names of classes are known; give --class-names FILE with one name a line.")
    return exit_code


def run_features(options: argparse.Namespace) -> int:
    """Save the stage maps (C, h, w) of each image in a file of its own."""
    stems = [Path(image).stem for image in options.images]
    if twice := {stem for stem in stems if stems.count(stem) > 1}:
        raise ValueError(f"expected images with names of their own, got twice: {sorted(twice)}")
    predictor = _predictor(options)
    exit_code = 0
    for image, stem in zip(options.images, stems, strict=True):
        try:
            x = predictor.prepare(image)
        except (ValueError, OSError) as error:
            exit_code = report(f"internimage {options.command}", error)
            continue
        with torch.inference_mode():
            maps = predictor.model.forward_intermediates(x, intermediates_only=True)
        target = options.output / f"{stem}.safetensors"
        save_checkpoint({f"stage{i}": y[0] for i, y in enumerate(maps)}, target)
        print(f"{target}  {'  '.join('x'.join(map(str, y.shape[1:])) for y in maps)}")
    return exit_code


def run_convert(options: argparse.Namespace) -> int:
    """Rewrite a checkpoint."""
    target: Path = options.target
    if not target.parent.is_dir():
        raise ValueError(f"expected a target in an existing folder, got {target}")
    if target.is_dir() or (target.exists() and not options.force):
        raise ValueError(f"expected a new file as target (or --force), got {target}, which exists")
    saved = read_checkpoint(options.source, use_ema=options.use_ema)
    if options.model is not None:
        num_classes = count_classes(saved.state_dict)
        model = create_model(
            options.model, num_classes=num_classes, features_only=num_classes is None
        )
        load_weights(model, saved.state_dict, origin=str(options.source))
    save_checkpoint(saved.state_dict, target, metadata=saved.metadata)
    checked = f", checked against {options.model}" if options.model else ""
    print(f"{target}: {len(saved.state_dict)} tensors{checked}")
    return 0


def check_device(name: str) -> str:
    """Return the name of a device that tensors can be on here.

    Raises:
        ValueError: there is no such device on this machine.
    """
    try:
        torch.zeros(1, device=name).item()  # a stand-in such as "meta" holds no values
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"expected a device of this machine, got --device {name} ({reason})"
        ) from error
    return name


def _predictor(options: argparse.Namespace, class_names: tuple[str, ...] = ()) -> Predictor:
    return build_predictor(
        options.model,
        options.checkpoint,
        class_names=class_names,
        random_weights=options.random_weights,
        use_ema=options.use_ema,
        image_size=options.image_size,
        device=check_device(options.device),
    )
