"""Which R-CNNs can be exported: those all of whose parts are known here to the last setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import (
    ConvFCBBoxHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
)
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from torch import nn

from internimage.integrations.openmmlab.export.boxes import MOST_CANDIDATES

# One class and two presets of it, which change nothing but the number of layers.
BOX_HEADS = (ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)

# The last says from how many boxes on mmcv takes groups one by one, and changes no result.
_NMS_FIELDS = frozenset({"type", "iou_threshold", "split_thr"})


def check_rcnn(model: TwoStageDetector) -> None:
    """Refuse an R-CNN that would be exported as something else.

    Args:
        model: of mmdet.

    Raises:
        ValueError: a part of the model or a setting of ``test_cfg`` is not known here.
    """
    head = model.roi_head
    _require_types("rpn_head", [model.rpn_head], (RPNHead,))
    _require_types("roi_head", [head], (StandardRoIHead, CascadeRoIHead))
    _require("a roi_head without shared_head", not head.with_shared_head, "one with it")
    rpn = model.rpn_head
    _require("an rpn_head with a sigmoid", rpn.use_sigmoid_cls, "one with a softmax")
    _require_types("prior_generator", [rpn.prior_generator], (AnchorGenerator,))
    _check_coder(rpn.bbox_coder)
    _require_types("bbox_roi_extractor", stages_of(head.bbox_roi_extractor), (SingleRoIExtractor,))
    _require_types("bbox_head", stages_of(head.bbox_head), BOX_HEADS)
    for box_head in stages_of(head.bbox_head):
        _check_coder(box_head.bbox_coder)
        # Losses such as Seesaw have activations of their own.
        _require(
            "a bbox_head with a softmax",
            not box_head.custom_cls_channels and not box_head.custom_activation,
            f"the activation of {type(box_head.loss_cls).__name__}",
        )
        _require(
            "a bbox_head with both branches", box_head.with_cls and box_head.with_reg, "one alone"
        )
    if head.with_mask:
        _require_types(
            "mask_roi_extractor", stages_of(head.mask_roi_extractor), (SingleRoIExtractor,)
        )
        _require_types("mask_head", stages_of(head.mask_head), (FCNMaskHead,))
    for extractor in _layers(head):
        _require("a roi_layer of RoIAlign", type(extractor).__name__ == "RoIAlign", extractor)
        _require("pool_mode = avg", extractor.pool_mode == "avg", extractor.pool_mode)
    _check_test_settings(model.test_cfg)


def _layers(head: Any) -> Iterator[nn.Module]:
    extractors = [*stages_of(head.bbox_roi_extractor)]
    if head.with_mask:
        extractors += stages_of(head.mask_roi_extractor)
    for extractor in extractors:
        yield from extractor.roi_layers


def _check_coder(coder: Any) -> None:
    _require_types("bbox_coder", [coder], (DeltaXYWHBBoxCoder,))
    # YOLOF's limit of how far a box moves; decode_boxes has none.
    _require("a bbox_coder without add_ctr_clamp", not coder.add_ctr_clamp, "one with it")


def _check_test_settings(settings: Mapping[str, Any]) -> None:
    for name, fields in (("rpn", ("nms_pre", "max_per_img")), ("rcnn", ("max_per_img",))):
        part = settings[name]
        for field in fields:
            count = part.get(field)  # mmdet takes -1 for all, of which no graph knows the number
            _require(
                f"test_cfg.{name}.{field} from 1 to {MOST_CANDIDATES}",
                isinstance(count, int) and 1 <= count <= MOST_CANDIDATES,
                count,
            )
        nms = part.get("nms") or {}
        _require(
            f"test_cfg.{name}.nms = dict(type='nms', iou_threshold=...)",
            nms.get("type", "nms") == "nms" and "iou_threshold" in nms and set(nms) <= _NMS_FIELDS,
            dict(nms),
        )
    threshold = settings["rcnn"].get("score_thr")
    _require(
        "test_cfg.rcnn.score_thr from 0 to 1",
        isinstance(threshold, int | float) and 0 <= threshold <= 1,
        threshold,
    )


def _require_types(name: str, modules: Sequence[Any], types: tuple[type, ...]) -> None:
    for module in modules:
        # A class of its own may compute something else, whatever it inherits from.
        _require(
            f"{name} of type {' or '.join(sorted(kind.__name__ for kind in types))}",
            type(module) in types,
            type(module).__name__,
        )


def _require(expected: str, is_so: bool, found: object) -> None:
    if not is_so:
        raise ValueError(
            f"export_detector: expected {expected}, got {found}; mmdeploy's route may know it: "
            "detection/deploy.py with a deploy config"
        )


def stages_of(modules: nn.Module) -> list[Any]:
    """Return a cascade's modules, or the only one as a list."""
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]
