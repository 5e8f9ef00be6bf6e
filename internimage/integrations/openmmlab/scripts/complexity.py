"""Parameters and operations of a whole detector or segmentor, on tensors without storage.

As in the published tables: multiply-accumulates of convolutions and linear layers, the sampling of
DCNv3, one image, and of an R-CNN's heads 1000 boxes and 100 masks. Those tables leave out what was
no layer to the counter behind them: a transformer's attention, counted here for itself.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from internimage.complexity import SAMPLING_OPERATIONS, Complexity, count_parameters
from internimage.integrations.openmmlab.scripts.arguments import parse_flops
from internimage.integrations.openmmlab.scripts.command_line import run_script
from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
from internimage.integrations.openmmlab.scripts.layer_counter import (
    LayerCounter,
    SizesAreNumbers,
)
from internimage.integrations.openmmlab.scripts.model_building import build_model
from internimage.integrations.openmmlab.scripts.ranks import replace_sync_batch_norm
from ops_dcnv3.modules import DCNv3

# Those of forward_dummy in mmdet 2, by which the counts were made.
NUM_BOXES = 1000
NUM_MASKS = 100
"""Regions that the heads of an R-CNN look at, in the counts that papers print."""


def main(
    name: str,
    configs: Path,
    arguments: Sequence[str] | None = None,
    *,
    shape: tuple[int, int] = (800, 1280),
) -> int:
    """Run the command line of a get_flops.py; return the exit code.

    Args:
        name: The script's name.
        configs: The folder of its configs.
        arguments: The command line; None is the process's own.
        shape: Height and width of the image where ``--shape`` is not given, pixels.
    """

    def script() -> None:
        args = parse_flops(name, arguments, shape=shape)
        config = read_config(args.config, args.cfg_options, configs=configs)
        check_task(config, configs)
        height, width = (-(-side // args.size_divisor) * args.size_divisor for side in args.shape)
        complexity, is_abstract = count_config(config, height, width)
        print(f"config      {args.config}")
        rounded = (
            "" if (height, width) == args.shape else f" (of {args.shape[0]} x {args.shape[1]})"
        )
        print(f"image       {height} x {width}{rounded}")
        print(f"parameters  {complexity.parameters / 1e6:.2f} M")
        print(f"FLOPs       {complexity.total / 1e9:.2f} G")
        print(f"  layers    {complexity.macs / 1e9:.2f} G multiply-accumulates")
        print(f"  sampling  {complexity.sampling / 1e9:.2f} G (DCNv3: 5 N P C a block)")
        if complexity.attention:
            attention = complexity.attention / 1e9
            print(f"attention   {attention:.2f} G more, which published tables leave out")
        if not is_abstract:
            print("the head was run: what it computes depends on values")

    return run_script(name, script)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelComplexity(Complexity):
    """What one image costs a detector or segmentor.

    Args:
        attention: multiply-accumulates outside ``macs`` and ``total``: products of two activations,
            as of queries and keys or of queries and pixels, and the projections within PyTorch's
            ``MultiheadAttention``.
    """

    attention: int


def count_config(config: Config, height: int, width: int) -> tuple[ModelComplexity, bool]:
    """Count the model of a config for one image.

    Args:
        config: Of a detector or segmentor.
        height: Of the image, pixels.
        width: Likewise.

    Returns:
        The counts, and whether nothing had to be computed for them. A head whose computation
        depends on values is run.
    """
    config = copy.deepcopy(config)  # replacing norms changes it
    init_default_scope(config.get("default_scope", "mmengine"))
    replace_sync_batch_norm(config)
    if "data_preprocessor" in config:
        config.model.setdefault("data_preprocessor", config.data_preprocessor)
    with torch.device("meta"):
        model = build_model(config.model).eval()
    model.to("meta")  # what names a device of its own has not followed
    parameters = count_parameters(model)
    image = torch.zeros(1, 3, height, width, device="meta")
    backbone = LayerCounter(model)
    with sampling_operations(model) as sampling, backbone:
        features = model.backbone(image)
    # Apart, for the head may have to be run, and the backbone never has.
    model.backbone = _Features(features)
    try:
        head = LayerCounter(model)
        with head, SizesAreNumbers():
            _forward(model, image)
        is_abstract = True
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
        # On zeros: what is counted depends on sizes, and noise of old memory may be NaN.
        model.to_empty(device="cpu")
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.detach().zero_()
        head = LayerCounter(model)
        with head:
            _forward(model, torch.zeros(1, 3, height, width))
        is_abstract = False
    complexity = ModelComplexity(
        parameters=parameters,
        macs=backbone.layers + head.layers,
        attention=backbone.attention + head.attention,
        sampling=sum(sampling),
    )
    return complexity, is_abstract


class _Features(nn.Module):
    """Stands in for a backbone that has been counted: its stage maps, without values.

    Args:
        features: Of the backbone.
    """

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.features = features

    def forward(self, image: Tensor) -> Any:
        """Return maps of zeros, where the image is."""
        return tree_map(lambda x: torch.zeros(x.shape, device=image.device), self.features)


@contextmanager
def sampling_operations(model: nn.Module) -> Iterator[list[int]]:
    """Count what PyTorch's counter of FLOPs does not know: the samplings of DCNv3.

    Args:
        model: Whose passes are to be counted.

    Yields:
        A list that gets the operations of each sampling that runs in the block.
    """
    counts: list[int] = []

    def count(module: DCNv3, _: Any, output: Tensor) -> None:
        # output is (N, Ho, Wo, C)
        counts.append(SAMPLING_OPERATIONS * output.numel() * module.geometry.num_points)

    hooks = [
        module.register_forward_hook(count)
        for module in model.modules()
        if isinstance(module, DCNv3)
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def _forward(model: nn.Module, image: Tensor) -> None:
    """Run all parts of a model once, a two-stage detector with a fixed number of regions."""
    head = getattr(model, "roi_head", None)
    if head is None:
        model(image, _samples(model, image), mode="tensor")
        return
    # Not model(image): how many boxes there are would depend on values.
    rpn_head: Any = model.rpn_head
    extract: Any = model.extract_feat
    rpn_head(extract(image))
    for extractor, part in _parts(head, "bbox"):
        part(_regions(extractor, NUM_BOXES, image))
    for extractor, part in _parts(head, "mask"):
        part(_regions(extractor, NUM_MASKS, image))


def _parts(head: nn.Module, kind: str) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    """Return the extractors and heads of one kind: one, or one for each stage of a cascade."""
    extractors: Any = getattr(head, f"{kind}_roi_extractor", None)
    parts: Any = getattr(head, f"{kind}_head", None)
    if parts is None:
        return
    if not isinstance(parts, nn.ModuleList):
        parts, extractors = [parts], [extractors]
    yield from zip(extractors, parts, strict=True)


def _regions(extractor: Any, count: int, image: Tensor) -> Tensor:
    # Pooled already: mmcv's RoIAlign is no layer, and cannot run on tensors without storage.
    size = extractor.roi_layers[0].output_size
    return torch.zeros(count, extractor.out_channels, *size, device=image.device)


def _samples(model: nn.Module, image: Tensor) -> list[Any] | None:
    """Return what a detector without regions wants to know of its image."""
    try:
        from mmdet.structures import DetDataSample
    except ImportError:
        return None
    height, width = image.shape[-2:]
    sample = DetDataSample(
        metainfo={
            "img_shape": (height, width),
            "ori_shape": (height, width),
            "batch_input_shape": (height, width),
            "scale_factor": (1.0, 1.0),
        }
    )
    return [sample]
