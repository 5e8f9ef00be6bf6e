"""Records of the original segmentors: their models, built and filled here, and their inputs."""

from __future__ import annotations

from typing import Any

from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import internimage.integrations.openmmlab.segmentation  # noqa: F401  (registers the models)
from internimage.integrations.openmmlab import convert_state_dict
from tests.released_records import (
    Arrays,
    Weight,
    read_task_record,
    released_weights,
    without_sync_bn,
)
from tests.segmentation.released_configs import to_current


def read_record(name: str) -> tuple[dict[str, Any], Arrays]:
    """Return a record's description and its arrays."""
    return read_task_record("segmentation", name)


def build_filled(record: dict[str, Any], weight: Weight) -> nn.Module:
    """Build a record's model; every weight comes from its original name, and all must fit."""
    model = MODELS.build(ConfigDict(without_sync_bn(to_current(record["model"]))))
    # strictly, although the segmentor would convert by itself
    model.load_state_dict(convert_state_dict(released_weights(record, weight)), strict=True)
    return model


def data_samples(record: dict[str, Any]) -> list[SegDataSample]:
    """Return mmseg's data samples of a record's images, without masks."""
    batch, _, height, width = record["input"]["shape"]
    shape = (height, width)
    metas = dict(ori_shape=shape, img_shape=shape, pad_shape=shape)
    return [SegDataSample(metainfo=dict(metas)) for _ in range(batch)]
