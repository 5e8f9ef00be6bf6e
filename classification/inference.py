"""A model for evaluation: its weights, and a forward pass as in training.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from yacs.config import CfgNode

from classification.evaluation import Forward
from classification.models import build_model
from classification.pretrained import check_is_there, check_size
from classification.strategies.precision import Precision
from classification.strategies.torch_native import in_memory_format
from internimage import CheckpointMetadata, InternImage, load_checkpoint, read_checkpoint
from internimage.checkpoint import load_weights
from internimage.checkpoint_file import open_checkpoint
from internimage.checkpoint_layouts import EMA_CONTAINERS, count_classes, select_state_dict
from internimage.hub import find_release
from internimage.imagenet22k import NUM_22K_CLASSES, imagenet_1k_rows

NUM_1K_CLASSES = 1000


class SavedModel(NamedTuple):
    """A model, and where its weights are from.

    Args:
        model: The model.
        weights: What was loaded, a line; None if the weights are random.
        class_names: Those that the weights came with, or none.
    """

    model: InternImage
    weights: str | None
    class_names: tuple[str, ...]


def build_saved_model(config: CfgNode, *, use_ema: bool) -> SavedModel:
    """Builds the model with the weights and the classes of MODEL.RESUME or MODEL.PRETRAINED.

    No data is needed. Without either the weights are random, the same at every call.

    Args:
        config: The settings.
        use_ema: Whether to take the averaged weights of a training checkpoint.

    Raises:
        ValueError: The weights are of another model, or the file is broken.
        OSError: There is no such file, or no network to download a released name.
    """
    source = config.MODEL.RESUME or config.MODEL.PRETRAINED
    num_classes = config.MODEL.NUM_CLASSES or NUM_1K_CLASSES
    torch.manual_seed(config.SEED)
    if not source:
        return SavedModel(build_model(config, num_classes=num_classes), None, ())
    class_names: tuple[str, ...] = ()
    release = None if Path(source).is_file() else find_release(source)
    if release is not None:
        num_classes = release.num_classes
    else:
        check_is_there(source, "MODEL.RESUME" if config.MODEL.RESUME else "MODEL.PRETRAINED")
        saved = read_checkpoint(source, use_ema=use_ema)
        num_classes = count_classes(saved.state_dict) or num_classes
        class_names = () if saved.metadata is None else saved.metadata.class_names
    model = build_model(config, num_classes=num_classes)
    return SavedModel(model, load_weights_to_evaluate(config, model, use_ema=use_ema), class_names)


def load_weights_to_evaluate(
    config: CfgNode,
    model: InternImage,
    *,
    use_ema: bool | None = None,
    class_names: Sequence[str] = (),
) -> str:
    """Loads MODEL.RESUME, or else MODEL.PRETRAINED, whole: nothing may be missing.

    Args:
        config: The settings.
        model: The model; the weights are put in it.
        class_names: Those of the data, which the file's must be where it has any; empty if no
            labels are compared.
        use_ema: Whether to take the averaged weights of a training checkpoint. None takes them
            with TRAIN.EMA.ENABLE, where there are any: those that the training evaluated.

    Returns:
        What was loaded, a line.

    Raises:
        ValueError: The weights are of another model or other classes, or the file is broken.
        OSError: There is no such file, or no network to download a released name.
    """
    source = config.MODEL.RESUME or config.MODEL.PRETRAINED
    if find_release(source) is None or Path(source).exists():
        check_is_there(source, "MODEL.RESUME" if config.MODEL.RESUME else "MODEL.PRETRAINED")
        content, metadata = open_checkpoint(source)
        if use_ema is None:
            has_average = any(content.get(name) for name in EMA_CONTAINERS)
            use_ema = config.TRAIN.EMA.ENABLE and has_average
        weights = select_state_dict(content, use_ema=use_ema)
        check_size(weights, model, config, source=source)
        _check_classes(count_classes(weights), model, source)
        if metadata is not None:
            _check_names(CheckpointMetadata.from_json(metadata).class_names, class_names, source)
        report = load_weights(model, weights, origin=source)
    else:
        report = load_checkpoint(model, source, use_ema=bool(use_ema))  # a released name
    which = "averaged weights of " if use_ema else ""
    return "; ".join((f"{which}{source}", *report.adaptations))


def _check_classes(num_classes: int | None, model: InternImage, source: str) -> None:
    """Checks the number of classes, before it is a shape of a tensor."""
    selects = (num_classes, model.num_classes) == (NUM_22K_CLASSES, NUM_1K_CLASSES)
    if num_classes not in (None, model.num_classes) and not selects:
        raise ValueError(
            f"load_weights_to_evaluate: expected weights of {model.num_classes} classes, as the "
            f"data has (or MODEL.NUM_CLASSES), got {num_classes} in {source}"
        )


def _check_names(saved: Sequence[str], names: Sequence[str], source: str) -> None:
    """Checks that labels mean what they meant; the file may have classes beyond the data's."""
    for label, (before, now) in enumerate(zip(saved, names, strict=False)):
        if before != now:
            raise ValueError(
                f"load_weights_to_evaluate: expected the classes of {source} in the data, got "
                f"class {label} = {now}, which is {before} there"
            )


def build_forward(
    config: CfgNode, model: InternImage, device: torch.device, *, num_classes: int
) -> Forward:
    """Returns a forward pass without gradients as the training's: precision, layout, compilation.

    Args:
        config: The settings.
        model: The model; is on the device and in evaluation mode afterwards.
        device: Where it computes.
        num_classes: The classes of the data: 1,000 with EVAL_22K_TO_1K.

    Returns:
        What maps images (N, 3, H, W), or a tuple of them, times and places, to float32 logits
        (N, K).

    Raises:
        ValueError: The data of EVAL_22K_TO_1K are not ImageNet-1k's.
    """
    memory_format = torch.channels_last if config.TRAIN.CHANNELS_LAST else torch.contiguous_format
    model.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
    model.eval()
    if config.TRAIN.COMPILE:
        model.compile()
    precision = Precision(config, device)
    rows: Tensor | None = None
    if config.EVAL_22K_TO_1K:
        if num_classes != NUM_1K_CLASSES:
            raise ValueError(
                f"build_forward: expected data of {NUM_1K_CLASSES} classes beside EVAL_22K_TO_1K, "
                f"got {num_classes}"
            )
        rows = torch.tensor(imagenet_1k_rows(), device=device)

    @torch.no_grad()
    def forward(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        with precision.autocast():
            logits = model(in_memory_format(inputs, memory_format)).float()
        return logits if rows is None else logits[:, rows]

    return forward
