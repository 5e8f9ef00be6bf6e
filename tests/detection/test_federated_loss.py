"""Federated loss: an image learns from its own classes and from a few others drawn at random."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import internimage.integrations.openmmlab.detection  # noqa: F401  (registers the head)
from internimage.integrations.openmmlab.detection import FederatedClasses
from internimage.integrations.openmmlab.detection.federated_loss import read_image_counts

COUNTS = [16, 4, 1, 0]


@pytest.fixture
def ann_file(tmp_path):
    path = tmp_path / "lvis.json"
    categories = [{"id": i + 1, "name": str(i), "image_count": c} for i, c in enumerate(COUNTS)]
    path.write_text(json.dumps({"categories": categories}))
    return str(path)


def test_counts_come_from_the_categories_of_lvis(ann_file):
    assert read_image_counts(ann_file) == COUNTS


def test_counts_of_a_coco_file_are_those_of_images_not_of_objects(tmp_path):
    path = tmp_path / "coco.json"
    pairs = [(7, 1), (7, 1), (7, 2), (3, 2)]
    annotations = [{"category_id": category, "image_id": image} for category, image in pairs]
    categories = [{"id": 7, "name": "a"}, {"id": 3, "name": "b"}, {"id": 9, "name": "c"}]
    path.write_text(json.dumps({"categories": categories, "annotations": annotations}))
    assert read_image_counts(path) == [2, 1, 0]  # in the file's order, as mmdet's labels


def test_an_image_learns_from_its_own_classes_and_as_many_others_as_are_wanted(ann_file):
    classes = FederatedClasses(total_classes=4, num_classes=2, ann_file=ann_file)
    for _ in range(20):
        weights = classes.draw(torch.tensor([2, 2]))
        assert weights[2] == 1.0 and weights.sum() == 2.0
        assert weights[3] == 0.0  # no image shows it
    assert torch.equal(classes.draw(torch.tensor([0, 1, 2])), torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_an_image_without_objects_learns_from_drawn_classes_alone(ann_file):
    classes = FederatedClasses(total_classes=4, num_classes=2, ann_file=ann_file)
    assert classes.draw(torch.zeros(0, dtype=torch.long)).sum() == 2.0


def test_classes_without_images_are_not_drawn_even_when_more_are_wanted(ann_file):
    classes = FederatedClasses(total_classes=4, num_classes=4, ann_file=ann_file)
    assert classes.draw(torch.tensor([3])).tolist() == [1.0, 1.0, 1.0, 1.0]
    assert classes.draw(torch.tensor([0])).tolist() == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(("power", "ratio"), [(0.5, 4 / 2), (1.0, 16 / 4), (0.0, 1.0)])
def test_common_classes_are_drawn_more_often_by_the_power_of_their_frequency(
    ann_file, power, ratio
):
    classes = FederatedClasses(
        total_classes=4, num_classes=1, frequency_power=power, ann_file=ann_file
    )
    torch.manual_seed(0)
    drawn = sum(classes.draw(torch.zeros(0, dtype=torch.long)) for _ in range(6000))
    # standard deviation of the ratio below 5 %
    assert float(drawn[0] / drawn[1]) == pytest.approx(ratio, rel=0.15)


def head(fed_loss=None):
    return MODELS.build(
        ConfigDict(
            type="InternImageDINOHead",
            num_classes=4,
            embed_dims=8,
            num_pred_layer=3,
            as_two_stage=True,
            sync_cls_avg_factor=True,
            fed_loss=fed_loss,
            loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25),
            loss_bbox=dict(type="L1Loss", loss_weight=5.0),
            loss_iou=dict(type="GIoULoss", loss_weight=2.0),
            train_cfg=dict(
                assigner=dict(
                    type="HungarianAssigner",
                    match_costs=[dict(type="BBoxL1Cost", weight=5.0, box_format="xywh")],
                )
            ),
            test_cfg=dict(max_per_img=5),
        )
    )


def loss_inputs():
    """Two layers, two images, 4 denoising and 6 other queries, 4 classes."""
    torch.manual_seed(0)
    metas = [dict(img_shape=(32, 32)), dict(img_shape=(32, 32))]
    targets = [
        InstanceData(bboxes=torch.tensor([[2.0, 2, 20, 20]]), labels=torch.tensor([2])),
        InstanceData(bboxes=torch.tensor([[4.0, 8, 30, 24]]), labels=torch.tensor([1])),
    ]
    logits = torch.randn(2, 2, 10, 4, requires_grad=True)
    encoder_logits = torch.randn(2, 6, 4, requires_grad=True)
    boxes = torch.rand(2, 2, 10, 4) * 0.4 + 0.2
    dn_meta = dict(num_denoising_queries=4, num_denoising_groups=2)
    return (
        logits,
        encoder_logits,
        (logits, boxes, encoder_logits, boxes[0, :, :6], targets, metas),
        dn_meta,
    )


def test_only_the_classes_drawn_have_a_gradient_in_every_part_of_the_loss(ann_file):
    federated = head(dict(num_classes=1, ann_file=ann_file))
    logits, encoder_logits, inputs, dn_meta = loss_inputs()
    losses = federated.loss_by_feat(*inputs, dn_meta)
    sum(value for name, value in losses.items() if "loss_cls" in name).backward()
    learnt = torch.tensor([[False, False, True, False], [False, True, False, False]])
    for gradient in (logits.grad[0], logits.grad[1], encoder_logits.grad):
        assert torch.equal((gradient != 0).any(dim=1), learnt)
        assert torch.equal((gradient != 0).all(dim=1), learnt)


def test_with_all_classes_the_loss_is_the_ordinary_one(tmp_path):
    path = tmp_path / "all.json"
    categories = [{"id": i, "name": str(i), "image_count": 1} for i in range(4)]
    path.write_text(json.dumps({"categories": categories}))
    _, _, inputs, dn_meta = loss_inputs()
    ordinary = head().loss_by_feat(*inputs, dn_meta)
    federated = head(dict(num_classes=4, ann_file=str(path))).loss_by_feat(*inputs, dn_meta)
    assert ordinary.keys() == federated.keys()
    for name, value in ordinary.items():
        torch.testing.assert_close(federated[name], value)


def test_boxes_learn_as_without_it(ann_file):
    _, _, inputs, dn_meta = loss_inputs()
    ordinary = head().loss_by_feat(*inputs, dn_meta)
    federated = head(dict(num_classes=1, ann_file=ann_file)).loss_by_feat(*inputs, dn_meta)
    for name, value in ordinary.items():
        if "cls" in name:
            assert federated[name] < value
        else:
            assert torch.equal(federated[name], value)


def test_the_metas_that_the_caller_holds_stay_as_they_are(ann_file):
    _, _, inputs, dn_meta = loss_inputs()
    head(dict(num_classes=1, ann_file=ann_file)).loss_by_feat(*inputs, dn_meta)
    assert inputs[5] == [dict(img_shape=(32, 32)), dict(img_shape=(32, 32))]


def draw_on_a_rank(rank, rendezvous, folder):
    """Only the first rank's folder has the file."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2
    )
    path = folder / str(rank) / "lvis.json"
    classes = FederatedClasses(total_classes=4, num_classes=2, ann_file=str(path))
    assert classes.draw(torch.tensor([2, 2])).sum() == 2
    chances = classes._chances
    assert chances is not None and (chances**2).tolist() == COUNTS
    missing = FederatedClasses(total_classes=4, num_classes=2, ann_file=f"{path}.none")
    with pytest.raises(FileNotFoundError, match="0/lvis.json.none"):
        missing.draw(torch.tensor([0]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_one_rank_reads_the_file_for_all(ann_file, tmp_path):
    (tmp_path / "0").mkdir()
    shutil.copy(ann_file, tmp_path / "0" / "lvis.json")
    torch.multiprocessing.spawn(draw_on_a_rank, (tmp_path / "rendezvous", tmp_path), nprocs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_classes=0), "expected 1 <= num_classes <= 4, the classes of the head, got 0"),
        (dict(num_classes=5), "expected 1 <= num_classes <= 4, the classes of the head, got 5"),
        (dict(num_classes=2, frequency_power=-1.0), "expected frequency_power >= 0, got -1.0"),
        (dict(num_classes=2, ann_file=""), "expected ann_file = an annotation file, got ''"),
    ],
)
def test_options_out_of_range_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        head(dict(ann_file="lvis.json") | options)


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="prob"):
        head(dict(ann_file="lvis.json", num_classes=2, prob=0.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": True}, "num_classes = a whole number, got True"),
        ({"num_classes": 1.0}, "num_classes = a whole number, got 1.0"),
        ({"frequency_power": "x"}, "frequency_power = a number, got 'x'"),
        ({"ann_file": None}, "ann_file = an annotation file, got None"),
    ],
)
def test_arguments_of_another_kind_are_named(changes, message):
    with pytest.raises(TypeError, match=f"FederatedClasses: expected {message}"):
        FederatedClasses(**{"total_classes": 4, "ann_file": "lvis.json"} | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"categories": [{"id": 1, "image_count": 3}]}', "the 4 classes of the head, .* with 1"),
        ('{"annotations": []}', "expected a file with categories"),
        ("[1, 2]", "expected a file with categories"),
        ("{", "expected a JSON file"),
    ],
)
def test_an_annotation_file_that_does_not_fit_is_an_error(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    classes = FederatedClasses(total_classes=4, num_classes=2, ann_file=str(path))
    with pytest.raises(ValueError, match=message):
        classes.draw(torch.tensor([0]))


def test_a_missing_annotation_file_matters_when_the_loss_needs_it_and_not_before(tmp_path):
    federated = head(dict(num_classes=2, ann_file=str(tmp_path / "none.json")))
    _, _, inputs, dn_meta = loss_inputs()
    with pytest.raises(FileNotFoundError, match="none.json"):
        federated.loss_by_feat(*inputs, dn_meta)
