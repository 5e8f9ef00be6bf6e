"""Mask R-CNN with one backbone or another: what bench_detectors.py compares.

Everything behind the backbone is mmdet's Mask R-CNN with a feature pyramid, the same for all.
"""

from collections.abc import Callable
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner  # noqa: F401  loads mmengine's configs for `mmdet::`
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tools.benchmarks.backbones import Contender, contenders, load_package

BASE = "_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'"
PYRAMID_WIDTH = 256
NUM_REGIONS = 1000


CONTENDERS = contenders("mmdet")


def build(contender: Contender, *, width: int = PYRAMID_WIDTH) -> nn.Module:
    """Builds a Mask R-CNN with random weights, ready to predict.

    Args:
        contender: its backbone.
        width: channels of the pyramid and of the heads' convolutions.

    Raises:
        ImportError: the package that the backbone comes from is missing.
    """
    load_package(contender)
    config = Config.fromstring(BASE, ".py")
    model = config.model
    if contender.backbone is not None:
        model.backbone = contender.backbone
    model.backbone.pop("init_cfg", None)  # weights to download
    model.neck.update(in_channels=list(contender.in_channels), out_channels=width)
    model.rpn_head.update(in_channels=width, feat_channels=width)
    for name in ("bbox", "mask"):
        model.roi_head[f"{name}_roi_extractor"].out_channels = width
        model.roi_head[f"{name}_head"].in_channels = width
    model.roi_head.mask_head.conv_out_channels = width
    init_default_scope("mmdet")
    torch.manual_seed(0)
    return MODELS.build(model).eval()


def make_input(height: int, width: int, device: str = "cpu") -> tuple[Tensor, list[DetDataSample]]:
    """Returns a normalised image (1, 3, height, width) and what mmdet wants to know of it."""
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    facts = dict(
        img_shape=(height, width),
        ori_shape=(height, width),
        pad_shape=(height, width),
        scale_factor=(1.0, 1.0),
    )
    return image.to(device), [DetDataSample(metainfo=facts)]


def make_regions(height: int, width: int, device: str = "cpu") -> InstanceData:
    """Returns the same regions for all: COCO's sizes, 16 to 512 pixels.

    RoIAlign reads as many points as a region is large, and how large the proposals of untrained
    weights are hangs on the backbone.
    """
    generator = torch.Generator().manual_seed(0)
    sides = 16 * 32 ** torch.rand(NUM_REGIONS, 2, generator=generator)
    sides = sides.minimum(torch.tensor([width, height]))
    corners = torch.rand(NUM_REGIONS, 2, generator=generator) * (
        torch.tensor([width, height]) - sides
    )
    return InstanceData(bboxes=torch.cat([corners, corners + sides], dim=1).to(device))


def forward_pass(model: Any, height: int, width: int, device: str) -> Callable[[], Any]:
    """Returns a function that runs a whole detector once.

    The pass is the one that published FLOPs count: backbone, pyramid, proposals with their
    suppression, box head on 1000 regions, mask head on 100. Only the suppression of the final boxes
    is left out: with random weights it would have nothing to do.
    """
    image, samples = make_input(height, width, device)
    regions = make_regions(height, width, device)

    @torch.inference_mode()
    def run() -> Any:
        maps = model.extract_feat(image)
        model.rpn_head.predict(maps, samples, rescale=False)
        return model.roi_head.forward(maps, [regions], samples)

    return run
