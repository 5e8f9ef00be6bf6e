"""A model of every family learns from its own config's settings and predicts."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import internimage.integrations.openmmlab.detection  # noqa: F401  (registers the models)
from tests.config_facts import build_as_if_trained
from tests.detection import tiny_detection_sets as tiny
from tests.detection.config_facts import load_current

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 128, 160
CB_H = "dino_4scale_cbinternimage_h_objects365"


@dataclasses.dataclass(frozen=True)
class Family:
    """A config, and the small backbone that stands for its own."""

    config: str
    arch: str
    masks: bool = False


FAMILIES = {
    "Mask R-CNN": Family("coco/mask_rcnn_internimage_t_fpn_1x_coco", "test_t", masks=True),
    "Cascade": Family("coco/cascade_internimage_l_fpn_3x_coco", "test_s", masks=True),
    "CrowdHuman": Family("crowd_human/cascade_internimage_xl_fpn_3x_crowd_human", "test_s"),
    "DINO": Family("coco/dino_4scale_internimage_t_1x_coco_layer_wise_lr", "test_t"),
    "DINO-H": Family("coco/dino_4scale_internimage_h_objects365_coco_ss", "test_h"),
    "DINO-G": Family("coco/dino_4scale_internimage_g_objects365_coco_ss", "test_g"),
    "CB-DINO": Family(f"coco/{CB_H}_coco_ss", "test_h"),
    "LVIS": Family(f"lvis/{CB_H}_lvis_val_ss", "test_h"),
}


def reduced(family: Family) -> Config:
    """Return the config with a small backbone, as many queries as fit, and no checkpoint."""
    config = copy.deepcopy(load_current(family.config))
    model = config.model
    model.backbone.arch = family.arch
    model.backbone.drop_path_rate = 0.0  # a branch that is left out has no gradient
    model.backbone.pop("init_cfg", None)
    widths = [16, 32, 64, 128]
    if "num_queries" in model:
        model.neck.in_channels = widths[1:]
        model.num_queries = 50
        model.dn_cfg.group_cfg.num_dn_queries = 20
        model.encoder.num_layers = model.decoder.num_layers = 2
    else:
        model.neck.in_channels = widths
        model.test_cfg.rcnn.score_thr = 0.0  # it has not learnt to be sure of anything
        model.test_cfg.rcnn.max_per_img = 20
        model.test_cfg.rpn.max_per_img = model.train_cfg.rpn_proposal.max_per_img = 40
        # On so small an image all large anchors cross its border.
        model.train_cfg.rpn.allowed_border = -1
        samplers = model.train_cfg.rcnn
        for stage in samplers if isinstance(samplers, list) else [samplers]:
            stage.sampler.num = 40
    return config


def batch_of(size: int, *, num_classes: int, masks: bool) -> dict[str, list[Any]]:
    """Return images of noise with two objects each, the second of another size than the first."""
    generator = torch.Generator().manual_seed(0)
    batch: dict[str, list[Any]] = {"inputs": [], "data_samples": []}
    for i in range(size):
        shape = (HEIGHT - 16 * i, WIDTH - 16 * i)
        image = torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8)
        boxes = torch.tensor([[10.0, 10.0, 60.0, 70.0], [40.0, 30.0, 140.0, 110.0]])
        targets = InstanceData(
            bboxes=HorizontalBoxes(boxes), labels=torch.tensor([0, num_classes - 1])
        )
        if masks:
            filled = torch.zeros(2, *shape, dtype=torch.uint8)
            for mask, (x1, y1, x2, y2) in zip(filled, boxes.int().tolist(), strict=True):
                mask[y1:y2, x1:x2] = 1
            targets.masks = BitmapMasks(filled.numpy(), *shape)
        sample = DetDataSample(
            metainfo={
                "img_id": i,
                "img_shape": shape,
                "ori_shape": shape,
                "scale_factor": (1.0, 1.0),
            },
            gt_instances=targets,
            ignored_instances=InstanceData(bboxes=HorizontalBoxes(torch.zeros(0, 4))),
        )
        batch["inputs"].append(image)
        batch["data_samples"].append(sample)
    return batch


def num_classes_of(config: Config) -> int:
    head = config.model.get("bbox_head") or config.model.roi_head.bbox_head
    return (head[0] if isinstance(head, list) else head).num_classes


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_one_step_has_finite_losses_reaches_every_parameter_and_changes_it(
    name: str, tmp_path: Path
):
    family = FAMILIES[name]
    config = reduced(family)
    if name == "LVIS":
        names = [str(i) for i in range(1203)]
        content = tiny.coco_content(names, (0, 1202), str)
        config.model.bbox_head.fed_loss.ann_file = str(tmp_path / "train.json")
        (tmp_path / "train.json").write_text(json.dumps(content))
    model = build_as_if_trained(config)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    batch = batch_of(2, num_classes=num_classes_of(config), masks=family.masks)
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode="loss")
    total, log = model.parse_losses(losses)
    assert len(log) > 3 and all(torch.isfinite(value) for value in log.values())
    optimizer.backward(total)
    assert unreached(model) == set()
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer.step()
    assert {k for k, value in model.named_parameters() if torch.equal(value, before[k])} == set()


def unreached(model: torch.nn.Module) -> set[str]:
    """Return the parameters without a gradient, or with one that is zero throughout."""
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    return {k for k, grad in gradients.items() if grad is None or not grad.abs().sum() > 0}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_prediction_has_boxes_inside_of_the_image_by_falling_score(name: str):
    family = FAMILIES[name]
    config = reduced(family)
    model = build_as_if_trained(config).eval()
    batch = batch_of(2, num_classes=num_classes_of(config), masks=family.masks)
    with torch.no_grad():
        samples = model.test_step(batch)
    limit = config.model.test_cfg.get("max_per_img") or config.model.test_cfg.rcnn.max_per_img
    for sample in samples:
        found = sample.pred_instances
        height, width = sample.ori_shape
        assert 0 < len(found) <= limit
        if "num_queries" in config.model:
            assert len(found) == limit
        assert ((found.scores[1:] <= found.scores[:-1]) & (found.scores[1:] >= 0)).all()
        assert found.scores[0] <= 1
        assert found.labels.max() < num_classes_of(config)
        corners = torch.tensor([width, height, width, height])
        assert ((found.bboxes >= 0) & (found.bboxes <= corners)).all()
        assert ("masks" in found) == family.masks
        if family.masks:
            assert found.masks.shape == (len(found), height, width)


def test_augmented_tests_merge_the_views_into_boxes_of_the_original_image(tmp_path: Path):
    config = load_current(f"coco/{CB_H}_coco_tta")
    model = reduced(FAMILIES["DINO"]).model
    pipeline = copy.deepcopy(config.tta_pipeline)
    for resize in pipeline[1].transforms[0]:
        resize.scale = tuple(side // 8 for side in resize.scale)
    tiny.make_coco(tmp_path, config, (0, 1))
    init_default_scope("mmdet")
    data = copy.deepcopy(config.test_dataloader.dataset)
    data.update(data_root=str(tmp_path), pipeline=pipeline)
    views = DATASETS.build(data)[0]
    assert [tuple(image.shape[1:]) for image in views["inputs"]] == [
        (100, 133),
        (100, 133),
        (125, 167),
        (125, 167),
        (150, 200),
        (150, 200),
    ]
    assert [sample.flip for sample in views["data_samples"]] == [True, False] * 3
    torch.manual_seed(0)
    augmented = MODELS.build(dict(config.tta_model, module=model)).eval()
    with torch.no_grad():
        (merged,) = augmented.test_step(pseudo_collate([views]))
    boxes = merged.pred_instances.bboxes
    assert 100 < len(boxes) <= 300  # more than one view has
    corners = torch.tensor([tiny.WIDTH, tiny.HEIGHT, tiny.WIDTH, tiny.HEIGHT])
    assert ((boxes >= 0) & (boxes <= corners)).all()
