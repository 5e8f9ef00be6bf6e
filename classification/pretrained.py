"""Weights to start from: MODEL.PRETRAINED, adapted to the model where a rule says how."""

import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from internimage import InternImage, read_checkpoint
from internimage.checkpoint import CLASSIFIER_PREFIXES, META_PREFIXES, load_weights
from internimage.checkpoint_layouts import to_model_keys
from internimage.hub import RELEASED, download, find_release
from internimage.script import nearest_hint
from internimage.variants import VARIANTS

# Factor of a fresh classifier's weights with RAND_INIT_FT_HEAD: its first gradients stay small.
FRESH_HEAD_SCALE = 0.001

_BLOCK = re.compile(r"levels\.(\d+)\.blocks\.(\d+)\.")
_WIDTH_KEY = "patch_embed.conv2.weight"  # (C, C / 2, 3, 3)


def load_pretrained(config: CfgNode, model: InternImage) -> str:
    """Loads MODEL.PRETRAINED, a file or a released name; for a run that does not resume.

    Without one the weights stay random, with a warning where the settings are for fine-tuning.

    Of 21,841 classes the 1,000 of ImageNet-1k are taken where the model has those; a classifier of
    any other size starts afresh, as does every one with RAND_INIT_FT_HEAD, 0.001 times as large.

    Args:
        config: The settings.
        model: The model; the weights are put in it.

    Returns:
        What was done, a line; empty if nothing was.

    Raises:
        ValueError: The weights are of another model, or the file is broken.
        OSError: There is no such file, or no network to download a released name.
    """
    source = config.MODEL.PRETRAINED
    if not source:
        for key in ("FINE_TUNE", "RAND_INIT_FT_HEAD"):
            if config.TRAIN[key]:
                warnings.warn(
                    f"TRAIN.{key} = True without MODEL.PRETRAINED: all weights start at random; "
                    "--pretrained names those to start from",
                    stacklevel=2,
                )
                break
        return ""
    is_release = find_release(source) is not None and not Path(source).is_file()
    if not is_release:
        check_is_there(source, "MODEL.PRETRAINED")
    weights = read_checkpoint(download(source) if is_release else source).state_dict
    check_size(weights, model, config, source=source)
    if to_model_keys(weights).keys().isdisjoint(model.state_dict()):
        raise ValueError(
            f"load_pretrained: expected weights of {config.MODEL.ARCH} for MODEL.PRETRAINED, got "
            f"{source} with other keys: {', '.join(list(weights)[:3])}"
        )
    resets = config.TRAIN.RAND_INIT_FT_HEAD
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the differences that are judged below
        report = load_weights(model, weights, strict=False, reset_head=resets, origin=source)
    # A MetaFormer starts from a plain classifier, and the other way round.
    may_differ = (*CLASSIFIER_PREFIXES, *META_PREFIXES)
    wrong_shapes = [key for key, _, _ in report.mismatched]
    differing = [*report.missing, *report.unexpected, *wrong_shapes]
    if strangers := [key for key in differing if not key.startswith(may_differ)]:
        raise ValueError(
            f"load_pretrained: expected weights of {config.MODEL.ARCH} for MODEL.PRETRAINED, got "
            f"{source} with {len(strangers)} other keys: {', '.join(strangers[:5])}"
        )
    if resets:
        with torch.no_grad():
            for parameter in model.get_classifier().parameters():
                parameter.mul_(FRESH_HEAD_SCALE)
    done = [f"{len(report.loaded)} tensors", *report.adaptations]
    if fresh := [*report.missing, *wrong_shapes]:
        done.append(f"afresh: {', '.join(fresh)}")
    if report.unexpected:
        done.append(f"left out: {', '.join(report.unexpected)}")
    return f"weights from {source}: {'; '.join(done)}"


def check_is_there(source: str, key: str) -> None:
    """Checks that weights are a file, where they are no released name.

    Args:
        source: What the setting says.
        key: The setting.

    Raises:
        FileNotFoundError: They are not.
    """
    if not Path(source).exists():
        hint = nearest_hint(source, list(RELEASED))
        raise FileNotFoundError(f"expected a file or a released name for {key}, got {source}{hint}")


def check_size(
    weights: Mapping[str, Tensor], model: InternImage, config: CfgNode, *, source: str
) -> None:
    """Checks width and depths, so that a wrong size is one line and not thousands of shapes.

    Args:
        weights: By the model's keys, or of another kind of model, on which nothing is said.
        model: What they are for.
        config: The settings; MODEL.ARCH is read.
        source: Where they come from.

    Raises:
        ValueError: They are of another size.
    """
    found, wanted = _size_of(weights), _size_of(model.state_dict())
    if found is not None and found != wanted:
        assert wanted is not None
        raise ValueError(
            f"check_size: expected weights of MODEL.ARCH = {config.MODEL.ARCH} "
            f"({_describe(*wanted)}), got those of {_name_of(*found)} ({_describe(*found)}) in "
            f"{source}"
        )


def _size_of(weights: Mapping[str, Tensor]) -> tuple[int, tuple[int, ...]] | None:
    """Returns channels and depths; None if the weights are of another kind of model."""
    blocks = {match.groups() for key in weights if (match := _BLOCK.match(key))}
    if _WIDTH_KEY not in weights or not blocks:
        return None
    depths = Counter(int(stage) for stage, _ in blocks)
    return weights[_WIDTH_KEY].shape[0], tuple(depths[stage] for stage in sorted(depths))


def _name_of(channels: int, depths: tuple[int, ...]) -> str:
    names = [n for n, v in VARIANTS.items() if (v.channels, v.depths) == (channels, depths)]
    return " or ".join(names) or "another size"


def _describe(channels: int, depths: tuple[int, ...]) -> str:
    return f"{channels} channels, depths {'-'.join(map(str, depths))}"
