"""Every data-set base reads its format, and what it reads goes through the pipelines and metric."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATA_SAMPLERS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from internimage.integrations.openmmlab.scripts.config_file import read_config
from tests.detection import tiny_detection_sets as tiny
from tests.detection.config_facts import CONFIGS, load_current

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def scores_without_forks(monkeypatch: pytest.MonkeyPatch):
    """Mmdet scores VOC and OpenImages in forks: of a process with threads, one may wait for ever.

    A fork has the locks of all threads and the threads not: a lock that is held at that moment
    stays so. Sessions of tests have threads of loaders, trackers and progress bars.
    """
    monkeypatch.setattr("mmdet.evaluation.functional.mean_ap.Pool", ThreadPool)


CB_H = "dino_4scale_cbinternimage_h_objects365"
SETS: dict[str, tuple[Callable[..., None], tuple[int, int], int, dict[str, float]]] = {
    # config: maker, labels of each image's objects, samples for training, scores of perfect boxes
    "coco/mask_rcnn_internimage_t_fpn_1x_coco": (
        tiny.make_coco,
        (0, 79),
        3,
        {"coco/bbox_mAP": 1.0, "coco/segm_mAP": 1.0},
    ),
    "coco/mask_rcnn_internimage_t_fpn_3x_coco": (
        tiny.make_coco,
        (5, 6),
        3,
        {"coco/bbox_mAP": 1.0, "coco/segm_mAP": 1.0},
    ),
    "coco/dino_4scale_internimage_t_1x_coco_layer_wise_lr": (
        tiny.make_coco,
        (79, 0),
        3,
        {"coco/bbox_mAP": 1.0},
    ),
    f"coco/{CB_H}_coco_ss": (tiny.make_coco, (0, 0), 3, {"coco/bbox_mAP": 1.0}),
    f"bdd100k/{CB_H}_bdd100k_ss": (tiny.make_coco, (0, 9), 3, {"coco/bbox_mAP": 1.0}),
    "objects365/dino_4scale_internimage_h_objects365": (
        tiny.make_coco,
        (364, 0),
        3,
        {"coco/bbox_mAP": 1.0},
    ),
    # Two years, read three times.
    f"voc/{CB_H}_voc07": (tiny.make_voc, (0, 19), 18, {"pascal_voc/mAP": 1.0}),
    f"openimages/{CB_H}_openimages_ss": (
        tiny.make_openimages,
        (0, 600),
        3,
        {"openimages/mAP": 1.0},
    ),
    "crowd_human/cascade_internimage_xl_fpn_3x_crowd_human": (
        tiny.make_crowd_human,
        (0, 0),
        3,
        # Its area starts at the recall of the first hit, one of six bodies.
        {"crowd_human/mAP": 5 / 6, "crowd_human/mMR": 0.0, "crowd_human/JI": 1.0},
    ),
    # Its metric needs a package that is no part of the test set-up.
    f"lvis/{CB_H}_lvis_val_ss": (tiny.make_lvis, (0, 1202), 3, {}),
}
CROPS = ("3x", "1x_coco_layer_wise", "crowd_human")


def at(root: Path, name: str) -> Config:
    """Return a config whose data set lies in another folder, as the command line says it."""
    return read_config(CONFIGS / f"{name}.py", {"data_root": str(root)})


@pytest.fixture(params=sorted(SETS))
def tiny_set(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Config]:
    """A config's name, and the config with the data set that was made for it."""
    name = request.param
    init_default_scope("mmdet")
    if name.startswith("lvis"):
        # The package's reader is COCO's under another name; the tests do without the package.
        monkeypatch.setitem(sys.modules, "lvis", types.SimpleNamespace(LVIS=COCO))
    make, labels, *_ = SETS[name]
    make(tmp_path, load_current(name), labels)
    return name, at(tmp_path, name)


def scale_of(sample: DetDataSample) -> tuple[float, float, float, float]:
    return tuple(sample.scale_factor) * 2


def test_samples_have_the_boxes_and_classes_of_the_annotations_at_the_scale_of_the_image(
    tiny_set: tuple[str, Config],
):
    name, config = tiny_set
    _, labels, length, _ = SETS[name]
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == length
    num_classes = len(dataset.metainfo["classes"])
    assert num_classes == num_classes_of(config.model)
    for index in range(min(length, tiny.NUM_IMAGES)):
        packed = dataset[index]
        sample = packed["data_samples"]
        height, width = sample.img_shape[:2]
        assert packed["inputs"].shape == (3, height, width)
        assert packed["inputs"].dtype == torch.uint8
        boxes = sample.gt_instances.bboxes
        boxes = getattr(boxes, "tensor", boxes)
        if any(part in name for part in CROPS):
            inside = torch.tensor([width, height, width, height])
            assert ((boxes >= 0) & (boxes <= inside)).all()
            assert set(sample.gt_instances.labels.tolist()) <= set(labels)
        else:
            assert sample.gt_instances.labels.tolist() == list(labels)
            torch.testing.assert_close(boxes, expected_boxes(sample), atol=1e-3, rtol=1e-5)
        if "mask" in name:
            assert sample.gt_instances.masks.masks.shape == (len(boxes), height, width)


def expected_boxes(sample: DetDataSample) -> Tensor:
    boxes = torch.tensor(tiny.BOXES, dtype=torch.float32) * torch.tensor(scale_of(sample))
    if sample.flip:
        width = sample.img_shape[1]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return boxes


def num_classes_of(model: dict[str, Any]) -> int:
    """Return the classes of a model's heads, which must agree."""
    found = set()

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            found.update(
                {value["num_classes"]} if "type" in value and "num_classes" in value else ()
            )
            value = list(value.values())
        if isinstance(value, list | tuple):
            for item in value:
                visit(item)

    visit(model)
    (num_classes,) = found
    return num_classes


def test_the_sampler_of_the_training_data_can_be_built_and_yields_indices(
    tiny_set: tuple[str, Config],
):
    _, config = tiny_set
    dataset = DATASETS.build(config.train_dataloader.dataset)
    loader = config.train_dataloader
    sampler = DATA_SAMPLERS.build(loader.sampler, default_args=dict(dataset=dataset, seed=0))
    batches = DATA_SAMPLERS.build(
        loader.batch_sampler, default_args=dict(sampler=sampler, batch_size=loader.batch_size)
    )
    drawn = next(iter(batches))
    assert len(drawn) == loader.batch_size
    assert all(0 <= index < len(dataset) for index in drawn)


def test_perfect_predictions_get_the_best_score(tiny_set: tuple[str, Config]):
    name, config = tiny_set
    _, labels, _, scores = SETS[name]
    dataset = DATASETS.build(config.val_dataloader.dataset)
    samples = [dataset[i]["data_samples"] for i in range(len(dataset))]
    assert len(samples) == tiny.NUM_IMAGES
    for sample in samples:
        # In a test boxes stay in the pixels of the original image, and images are not flipped.
        boxes = sample.gt_instances.bboxes
        boxes = getattr(boxes, "tensor", boxes)
        torch.testing.assert_close(boxes, torch.tensor(tiny.BOXES, dtype=torch.float32))
        assert sample.gt_instances.labels.tolist() == list(labels)
        assert max(sample.img_shape) in (1067, 1333)
        perfect = InstanceData(bboxes=boxes, labels=sample.gt_instances.labels)
        perfect.scores = torch.tensor([0.9, 0.8])
        if "mask" in name:
            perfect.masks = sample.gt_instances.masks.to_tensor(torch.bool, "cpu")
        sample.pred_instances = perfect
    if not scores:
        return
    evaluator = Evaluator(config.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    evaluator.process(data_samples=samples)
    results = evaluator.evaluate(len(samples))
    assert {key: results[key] for key in scores} == pytest.approx(scores, abs=1e-3)
    assert config.default_hooks.checkpoint.save_best in results
