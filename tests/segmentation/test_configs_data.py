"""Every data-set base reads its format, and what it reads goes through the pipelines and metric."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATA_SAMPLERS, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS

import internimage.integrations.openmmlab.segmentation  # noqa: F401  (registers data sets)
from tests.segmentation import tiny_public_sets as tiny
from tests.segmentation.config_facts import CONFIGS

pytestmark = pytest.mark.slow

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
M2F = "mask2former_internimage_h"


@dataclasses.dataclass(frozen=True)
class Case:
    """A data set.

    Args:
        base: its file.
        values: what the files of its masks hold.
        learnt: what the model gets of them.
        size: height and width in a test of an image of 48 x 64 pixels.
        tested: values and what is learnt of them in the validation, where they are others.
        sets: of how many parts the training data are put together.
        leaf: a config that uses it, if there is one.
    """

    base: str
    values: tuple[int, ...]
    learnt: tuple[int, ...]
    size: tuple[int, int]
    tested: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    sets: int = 1
    leaf: str | None = None


TRAIN_IDS = ((0, 18, 255), (0, 18, 255))
VISTAS = ((13, 61, 65, 255), (0, 14, 255, 255))
ADE = ((0, 1, 150, 255), (255, 0, 149, 255))
CASES = (
    Case("ade20k", *ADE, (512, 704), leaf="ade20k/upernet_internimage_t_512_160k_ade20k"),
    Case("ade20k_640", *ADE, (640, 864), leaf="ade20k/upernet_internimage_l_640_160k_ade20k"),
    Case("ade20k_896", *ADE, (896, 1216), leaf=f"ade20k/{M2F}_896_80k_cocostuff2ade20k_ss"),
    Case(
        "cityscapes",
        *TRAIN_IDS,
        (1024, 1365),
        leaf="cityscapes/upernet_internimage_t_512x1024_160k_cityscapes",
    ),
    Case(
        "cityscapes_extra",
        *TRAIN_IDS,
        (1024, 1365),
        sets=2,
        leaf="cityscapes/segformer_internimage_l_512x1024_160k_mapillary2cityscapes",
    ),
    Case(
        "cityscapes_extra_1024x1024",
        *TRAIN_IDS,
        (1024, 1376),
        sets=2,
        leaf=f"cityscapes/{M2F}_1024x1024_80k_mapillary2cityscapes",
    ),
    Case(
        "mapillary",
        *VISTAS,
        (1024, 1365),
        tested=TRAIN_IDS,
        sets=2,
        leaf="mapillary/upernet_internimage_l_512x1024_80k_mapillary",
    ),
    Case(
        "mapillary_896x896",
        *VISTAS,
        (1024, 1376),
        tested=TRAIN_IDS,
        sets=2,
        leaf=f"mapillary/{M2F}_896x896_80k_mapillary",
    ),
    Case(
        "coco_stuff164k_896",
        (0, 170, 255),
        (0, 170, 255),
        (896, 1216),
        leaf=f"coco_stuff164k/{M2F}_896_80k_cocostuff164k",
    ),
    Case(
        "coco_stuff10k",
        (0, 1, 171),
        (255, 0, 170),
        (512, 704),
        leaf=f"coco_stuff10k/{M2F}_512_40k_cocostuff164k_to_10k",
    ),
    Case(
        "pascal_context_59",
        (0, 1, 59),
        (255, 0, 58),
        (544, 704),
        leaf=f"pascal_context/{M2F}_480_40k_pascal_context_59",
    ),
    Case(
        "nyu_depth_v2",
        (0, 1, 40),
        (255, 0, 39),
        (480, 640),
        leaf=f"nyu_depth_v2/{M2F}_480_40k_nyu",
    ),
    # Without a config that uses them, in the original as well.
    Case("cityscapes_1024x1024", *TRAIN_IDS, (1024, 1376)),
    Case("mapillary_1024x1024", *VISTAS, (1024, 1365), tested=TRAIN_IDS, sets=2),
    Case("coco_stuff164k", (0, 170, 255), (0, 170, 255), (512, 704)),
    Case("pascal_context", (0, 59), (0, 59), (544, 704)),
    Case("pascal_voc12", (0, 20, 255), (0, 20, 255), (512, 704)),
    Case("pascal_voc12_aug", (0, 20, 255), (0, 20, 255), (512, 704), sets=2),
    Case("loveda", (0, 1, 7), (255, 0, 6), (768, 1024)),
    Case("potsdam", (0, 1, 6), (255, 0, 5), (384, 512)),
    Case("drive", (0, 1), (0, 1), (448, 608)),
    Case("chase_db1", (0, 1), (0, 1), (768, 1024)),
    Case("hrf", (0, 1), (0, 1), (2336, 3136)),
    Case("stare", (0, 1), (0, 1), (544, 704)),
)


@pytest.fixture(params=CASES, ids=lambda case: case.base, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def config(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a data set, which is there."""
    init_default_scope("mmseg")
    root = tmp_path_factory.mktemp(case.base)
    config = Config.fromfile(CONFIGS / "_base_" / "datasets" / f"{case.base}.py")
    tiny.make(root, config.train_dataloader.dataset, case.values)
    tested = case.tested or (case.values, case.learnt)
    tiny.make(root, config.val_dataloader.dataset, tested[0])
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        for data in tiny.parts_of(loader.dataset):
            data.data_root = str(root)
    return config


def test_every_base_has_its_case_and_the_leaves_are_those_that_use_it():
    files = {path.stem for path in (CONFIGS / "_base_" / "datasets").glob("*.py")}
    assert files - {"semantic", "digit_scenes"} == {case.base for case in CASES}
    for each in CASES:
        if each.leaf:
            assert (
                f'"../_base_/datasets/{each.base}.py"' in (CONFIGS / f"{each.leaf}.py").read_text()
            )


def test_a_training_sample_is_a_crop_with_the_labels_of_the_mask(case: Case, config: Config):
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == case.sets * tiny.NUM_IMAGES
    sampler = dict(config.train_dataloader.sampler)
    indices = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=0))
    sample = dataset[next(iter(indices))]
    height, width = sample["inputs"].shape[1:]
    assert sample["inputs"].dtype == torch.uint8
    assert height <= config.crop_size[0] and width <= config.crop_size[1]
    labels = sample["data_samples"].gt_sem_seg.data
    assert labels.shape == (1, height, width)
    assert set(labels.unique().tolist()) <= set(case.learnt)


def test_a_test_has_the_whole_image_and_the_mask_in_its_own_pixels(case: Case, config: Config):
    dataset = DATASETS.build(config.test_dataloader.dataset)
    assert len(dataset) == tiny.NUM_IMAGES
    tested = case.tested or (case.values, case.learnt)
    expected = tiny.stripes(tested[1])
    samples = []
    for i in range(len(dataset)):
        packed = dataset[i]
        assert packed["inputs"].shape == (3, *case.size)
        sample = packed["data_samples"]
        assert sample.ori_shape == (tiny.HEIGHT, tiny.WIDTH)
        assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), expected)
        # What is right wherever the mask is no "ignore", and wrong there.
        guess = np.where(expected == 255, 0, expected).astype(np.int64)
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(guess)[None])
        samples.append(sample.to_dict())
    evaluator = Evaluator(config.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    evaluator.process(data_samples=samples)
    scores = evaluator.evaluate(len(samples))
    assert scores["mIoU"] == scores["aAcc"] == 100.0  # of the classes that are there


# The others have the same steps; test_configs.py compares their sizes.
@pytest.mark.parametrize(
    "case", [CASES[0], CASES[3]], ids=lambda case: case.base, indirect=True, scope="module"
)
def test_an_augmented_test_has_six_sizes_and_their_mirror_images(case: Case, config: Config):
    data = config.test_dataloader.dataset
    views = DATASETS.build({**data, "pipeline": config.tta_pipeline})[0]
    plain = DATASETS.build(data)[0]
    height, width = case.size
    samples = views["data_samples"]
    assert [sample.flip for sample in samples] == [False, True] * 6
    heights = [image.shape[1] for image in views["inputs"]]
    assert heights == [
        int(height * ratio) for ratio in (0.5, 0.75, 1, 1.25, 1.5, 1.75) for _ in "ab"
    ]
    assert torch.equal(views["inputs"][4], plain["inputs"])
    assert torch.equal(views["inputs"][5], plain["inputs"].flip(-1))
    for sample in samples:  # masks stay as they are, and so does what is compared with them
        assert torch.equal(sample.gt_sem_seg.data, plain["data_samples"].gt_sem_seg.data)
