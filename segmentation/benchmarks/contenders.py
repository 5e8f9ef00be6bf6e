"""UperNet with one backbone or another: what bench_segmentors.py compares.

Everything around the backbone is that of our configs, the same for all.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

import internimage.integrations.openmmlab.segmentation  # noqa: F401  registers the segmentor
from tools.benchmarks.backbones import Contender, contenders, load_package

BASE = Path(__file__).resolve().parents[1] / "configs/_base_/models/upernet_internimage.py"
HEAD_WIDTH = 512

# The ResNet of mmseg's own UperNet: a stem of three convolutions, as its model list has it.
RESNET = dict(
    type="ResNetV1c",
    depth=50,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    dilations=(1, 1, 1, 1),
    strides=(1, 2, 2, 2),
    norm_cfg=dict(type="BN", requires_grad=True),
    style="pytorch",
    contract_dilation=True,
)
CONTENDERS = contenders("mmseg", RESNET)


def build(
    contender: Contender,
    *,
    kind: str = "InternImageSegmentor",
    num_classes: int = 150,
    width: int = HEAD_WIDTH,
    test_cfg: dict[str, Any] | None = None,
) -> nn.Module:
    """Builds an UperNet with random weights, ready to predict.

    Args:
        contender: its backbone.
        kind: the segmentor around it: ours, or mmseg's ``EncoderDecoder``.
        num_classes: of the head.
        width: channels of the head.
        test_cfg: whole images or windows; None leaves whole images.

    Raises:
        ImportError: the package that the backbone comes from is missing.
    """
    load_package(contender)
    model = Config.fromfile(BASE).model
    model.type = kind
    model.backbone = contender.backbone
    model.decode_head.update(
        in_channels=list(contender.in_channels), channels=width, num_classes=num_classes
    )
    model.auxiliary_head.update(in_channels=contender.in_channels[2], num_classes=num_classes)
    if test_cfg is not None:
        model.test_cfg = test_cfg
    init_default_scope("mmseg")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of losses, which have no part in this
        return revert_sync_batchnorm(MODELS.build(model)).eval()


def make_input(
    height: int, width: int, device: str = "cpu", *, photo: int = 1
) -> tuple[Tensor, SegDataSample]:
    """Returns a normalised image (1, 3, height, width) and what mmseg wants to know of it.

    Args:
        height: of the image as the model gets it, pixels.
        width: likewise.
        device: where the image is.
        photo: how many times as high and wide it was before the pipeline shrank it.
    """
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    facts = dict(
        img_shape=(height, width),
        ori_shape=(photo * height, photo * width),
        pad_shape=(height, width),
        scale_factor=(1 / photo, 1 / photo),
    )
    return image.to(device), SegDataSample(metainfo=facts)


def forward_pass(
    model: Any, height: int, width: int, device: str, *, photo: int = 1
) -> Callable[[], Any]:
    """Returns a function that runs a whole segmentor once: to the label of every pixel.

    The arguments are those of :func:`make_input`, behind the model.
    """
    image, sample = make_input(height, width, device, photo=photo)

    @torch.inference_mode()
    def run() -> Any:
        return model.predict(image, [sample])[0].pred_sem_seg.data

    return run
