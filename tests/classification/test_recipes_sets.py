"""The recipes of other data sets than ImageNet-1k; test_recipes.py trains each of them."""

from pathlib import Path

import pytest

from classification.config import flatten, get_config, get_default_config
from classification.data import DATASETS

CONFIGS = Path(__file__).resolve().parents[2] / "classification" / "configs"
FOLDERS = ("inaturalist2018", "places365", "places205", "imagenet22k", "cifar", "folder")
FILES = sorted(str(path.relative_to(CONFIGS)) for f in FOLDERS for path in (CONFIGS / f).iterdir())


def test_inat18_has_the_published_settings():
    config = get_config(CONFIGS / "inaturalist2018" / "internimage_h_22ktoinat18_384.yaml")
    found, defaults = dict(flatten(config)), dict(flatten(get_default_config()))
    assert {key: value for key, value in found.items() if value != defaults[key]} == {
        "DATA.DATASET": "inat18",
        "DATA.BATCH_SIZE": 16,
        "DATA.IMG_SIZE": 384,
        "MODEL.NAME": "internimage_h_22ktoinat18_384",
        "MODEL.TYPE": "intern_image_meta_former",
        "MODEL.ARCH": "internimage_h",
        "MODEL.DROP_PATH_RATE": 0.6,
        "MODEL.LABEL_SMOOTHING": 0.3,
        "TRAIN.EPOCHS": 100,
        "TRAIN.WARMUP_EPOCHS": 0,
        "TRAIN.BASE_LR": 2e-5,
        "TRAIN.WARMUP_LR": 0.0,
        "TRAIN.MIN_LR": 0.0,
        "TRAIN.FINE_TUNE": True,
        "TRAIN.RAND_INIT_FT_HEAD": True,
        "TRAIN.USE_CHECKPOINT": True,
        "TRAIN.OPTIMIZER.DCN_LR_MUL": 0.1,
        "AUG.MIXUP": 0.0,
        "AUG.CUTMIX": 0.0,
        "AUG.REPROB": 0.0,
    }


@pytest.mark.parametrize("file", FILES)
def test_what_has_not_been_run_says_so(file: str):
    text = (CONFIGS / file).read_text()
    bases = [CONFIGS / "_base_" / name for name in ("cifar_32", "cifar_224")]
    bases += [CONFIGS / "_base_" / name for name in ("imagenet_22k_192", "imagenet_22k_384")]
    read = text + "".join(
        path.with_suffix(".yaml").read_text() for path in bases if f"{path.name}.yaml" in text
    )
    words = " ".join(read.replace("#", " ").split())
    is_proposal = "not been run" in words or "A point to start from" in words
    assert is_proposal != ("Published: 92.6 % top-1" in words)
    assert get_config(CONFIGS / file).DATA.DATASET in DATASETS


@pytest.mark.parametrize("file", [file for file in FILES if "22k" in file and "/in" in file])
def test_the_comment_on_top_has_the_images_of_a_step(file: str):
    config = get_config(CONFIGS / file)
    head = (CONFIGS / file).read_text()
    images = 32 * config.DATA.BATCH_SIZE
    assert f"32 GPUs x {config.DATA.BATCH_SIZE} images = {images:,} a step" in " ".join(
        head.split()
    )
