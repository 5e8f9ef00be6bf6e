"""Every shipped YAML has the values of the published recipes, builds, and makes a step.

The tables are written out here, apart from the files: name -> what the original's file resolves to.
"""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from classification.config import flatten, get_config, get_default_config
from classification.distributed import Ranks
from classification.launch.arguments import FLAGS
from classification.models import build_model
from classification.runs.run import prepare
from classification.strategies.deepspeed_json import json_options
from internimage.hub import RELEASED
from tests.classification.tiny_sets import write_data_set

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "classification" / "configs"

# C, depths, groups, norm, layer scale, offset scale, depthwise kernel, drop path, pixels, epochs,
# warm-up, base rate for 512 images, images a rank, label smoothing, published top-1.
LARGE = ("post", 1e-5, 2.0, None)
TABLE = {
    "internimage_t_1k_224": (64, (4, 4, 18, 4), (4, 8, 16, 32), ("pre", None, 1.0, None))
    + (0.1, 224, 300, 20, 5e-4, 128, 0.1, 83.5),
    "internimage_s_1k_224": (80, (4, 4, 21, 4), (5, 10, 20, 40), ("post", 1e-5, 1.0, None))
    + (0.4, 224, 300, 20, 5e-4, 128, 0.1, 84.2),
    "internimage_b_1k_224": (112, (4, 4, 21, 4), (7, 14, 28, 56), ("post", 1e-5, 1.0, None))
    + (0.5, 224, 300, 20, 5e-4, 128, 0.1, 84.9),
    "internimage_l_22kto1k_384": (160, (5, 5, 22, 5), (10, 20, 40, 80), LARGE)
    + (0.1, 384, 20, 2, 2e-5, 16, 0.3, 87.7),
    "internimage_xl_22kto1k_384": (192, (5, 5, 24, 5), (12, 24, 48, 96), LARGE)
    + (0.2, 384, 20, 2, 2e-5, 16, 0.3, 88.0),
    "internimage_h_22kto1k_384": (320, (6, 6, 32, 6), (10, 20, 40, 80), ("res", None, 1.0, 5))
    + (0.2, 384, 20, 2, 2e-5, 16, 0.3, None),
    "internimage_h_22kto1k_640": (320, (6, 6, 32, 6), (10, 20, 40, 80), ("res", None, 1.0, 5))
    + (0.2, 640, 20, 2, 2e-5, 16, 0.3, 89.6),
    "internimage_g_22kto1k_512": (512, (2, 2, 48, 4), (16, 32, 64, 128), ("post", None, 1.0, 5))
    + (0.4, 512, 20, 2, 2e-5, 8, 0.3, 90.1),
}
SETS = [
    *((name, f"{name}.yaml") for name in TABLE),
    *((n, f"without_lr_decay/{n}.yaml") for n in TABLE if n != "internimage_h_22kto1k_384"),
]
IMAGENET_1K = [file for _, file in SETS]
ALL = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.yaml")
    if path.parent.name not in ("accelerate", "_base_")
)


def expected_settings(name: str, *, has_layer_decay: bool) -> dict[str, Any]:
    """The settings of a recipe by dotted key, as the facts have them."""
    row = TABLE[name]
    drop_path, pixels, epochs, warmup, base_lr, batch_size, smoothing, _ = row[4:]
    is_finetune = "22kto1k" in name
    return {
        "AMP_OPT_LEVEL": "O1",
        "AMP_TYPE": "float16",
        "EVAL_FREQ": 1,
        "DATA.DATASET": "imagenet",
        "DATA.IMG_SIZE": pixels,
        "DATA.IMG_ON_MEMORY": True,
        "DATA.INTERPOLATION": "bicubic",
        "DATA.BATCH_SIZE": batch_size,
        "MODEL.TYPE": "intern_image",
        "MODEL.DROP_RATE": 0.0,
        "MODEL.DROP_PATH_RATE": drop_path,
        "MODEL.DROP_PATH_TYPE": "linear",
        "MODEL.LABEL_SMOOTHING": smoothing,
        "TRAIN.EPOCHS": epochs,
        "TRAIN.WARMUP_EPOCHS": warmup,
        "TRAIN.BASE_LR": base_lr,
        "TRAIN.WARMUP_LR": 0.0 if is_finetune else 5e-7,
        "TRAIN.MIN_LR": 0.0 if is_finetune else 5e-6,
        "TRAIN.WEIGHT_DECAY": 0.05,
        "TRAIN.CLIP_GRAD": 5.0,
        "TRAIN.USE_CHECKPOINT": is_finetune,
        "TRAIN.LR_LAYER_DECAY": is_finetune and has_layer_decay,
        "TRAIN.LR_LAYER_DECAY_RATIO": 0.9 if is_finetune and has_layer_decay else 0.875,
        "TRAIN.FINE_TUNE": is_finetune,
        "TRAIN.RAND_INIT_FT_HEAD": False,
        "TRAIN.LR_SCHEDULER.NAME": "cosine",
        "TRAIN.OPTIMIZER.NAME": "adamw",
        "TRAIN.OPTIMIZER.EPS": 1e-8,
        "TRAIN.OPTIMIZER.BETAS": (0.9, 0.999),
        "TRAIN.OPTIMIZER.USE_ZERO": name == "internimage_h_22kto1k_640",
        "TRAIN.OPTIMIZER.DCN_LR_MUL": 0.1 if is_finetune else None,
        "TRAIN.OPTIMIZER.FREEZE_BACKBONE": None,
        "TRAIN.EMA.ENABLE": True,
        "TRAIN.EMA.DECAY": 0.9999,
        "AUG.COLOR_JITTER": 0.4,
        "AUG.AUTO_AUGMENT": "rand-m9-mstd0.5-inc1",
        "AUG.REPROB": 0.0 if is_finetune else 0.25,
        "AUG.REMODE": "pixel",
        "AUG.RECOUNT": 1,
        "AUG.MIXUP": 0.0 if is_finetune else 0.8,
        "AUG.CUTMIX": 0.0 if is_finetune else 1.0,
        "AUG.CUTMIX_MINMAX": None,
        "AUG.MIXUP_PROB": 1.0,
        "AUG.MIXUP_SWITCH_PROB": 0.5,
        "AUG.MIXUP_MODE": "batch",
        "AUG.MEAN": (0.485, 0.456, 0.406),
        "AUG.STD": (0.229, 0.224, 0.225),
        "TEST.CROP": True,
        "TEST.SEQUENTIAL": False,
    }


@pytest.mark.parametrize(("name", "file"), SETS, ids=IMAGENET_1K)
def test_a_recipe_has_the_published_settings(name: str, file: str):
    found = dict(flatten(get_config(CONFIGS / file)))
    expected = expected_settings(name, has_layer_decay="/" not in file)
    assert {key: found[key] for key in expected} == expected
    assert found["MODEL.NAME"] == name
    # beside them nothing differs from the defaults but what names the model
    defaults = dict(flatten(get_default_config()))
    others = {key for key, value in found.items() if value != defaults[key]} - expected.keys()
    assert others == {"MODEL.NAME", "MODEL.ARCH"} - (
        {"MODEL.ARCH"} if name == "internimage_t_1k_224" else set()
    )


@pytest.mark.parametrize(("name", "file"), SETS, ids=IMAGENET_1K)
def test_a_recipe_builds_the_published_model(name: str, file: str):
    channels, depths, groups, (norm, layer_scale, offset_scale, kernel) = TABLE[name][:4]
    with torch.device("meta"):
        model = build_model(get_config(CONFIGS / file), num_classes=1000)
    assert (model.patch_embed.conv2.weight.shape[0], model.depths) == (channels, depths)
    geometry = [level.blocks[0].dcn.geometry for level in model.levels]
    assert tuple(each.groups for each in geometry) == groups
    block = model.levels[2].blocks[0]
    assert block.norm_order == {"pre": "pre", "post": "post", "res": "res_post"}[norm]
    assert (block.gamma1 is not None) == (layer_scale is not None)
    assert {each.offset_scale for each in geometry} == {offset_scale}
    assert block.dcn.dw_conv[0].weight.shape[-1] == (3 if kernel is None else kernel)
    assert model.use_clip_projector == (name.split("_")[1] in ("h", "g"))


@pytest.mark.parametrize("file", ALL)
def test_the_comment_on_top_names_the_file_and_says_what_comes_of_it(file: str):
    text = (CONFIGS / file).read_text()
    head = text[: text.index("\n", text.rindex("#   ")) if "#   " in text else 0]
    assert f"classification/configs/{file}" in head
    assert "torchrun" in head
    assert len([line for line in text.splitlines() if line[:1] not in ("#", "")]) <= 40
    known = [word for word in re.findall(r"--pretrained (\S+)", head) if word.startswith("inte")]
    assert all(word in RELEASED for word in known)


@pytest.mark.parametrize(("name", "file"), SETS, ids=IMAGENET_1K)
def test_the_comment_on_top_has_the_published_score(name: str, file: str):
    text = (CONFIGS / file).read_text()
    top1 = TABLE[name][-1]
    assert ("No score was published" if top1 is None else f"{top1} % top-1") in text
    nodes, images = (8, 8) if "_g_" in name else (4, TABLE[name][9])
    assert f"{nodes * 8} GPUs x {images} images = {nodes * 8 * images:,} a step" in text
    assert f"--nnodes {nodes} " in text
    if top1 is not None:
        assert RELEASED[name].top1 == top1


def test_every_recipe_of_the_original_has_its_name():
    names = {f"{name}.yaml" for name in TABLE} | {file for _, file in SETS if "/" in file}
    names |= {"inaturalist2018/internimage_h_22ktoinat18_384.yaml"}
    assert names <= set(ALL)


# A reduction of each size that keeps what is special about it.
REDUCTIONS = {"n": "t", "t": "t", "s": "s", "b": "s", "l": "s", "xl": "s", "h": "h", "g": "g"}

# Data sets that are no smaller than an image a class: fewer steps.
LARGER_BATCHES = {"digits": 512, "places205": 64}


@pytest.mark.slow
@pytest.mark.parametrize("file", ALL)
def test_a_recipe_trains_when_scaled_down(file: str, tmp_path: Path):
    plain = get_config(CONFIGS / file)
    if plain.DATA.DATASET != "digits":
        write_data_set(plain.DATA.DATASET, tmp_path / "data")
    size = plain.MODEL.ARCH.removeprefix("internimage_")
    options = {
        "MODEL.ARCH": f"internimage_test_{REDUCTIONS[size]}",
        "DATA.DATA_PATH": tmp_path / "data",
        "DATA.IMG_SIZE": 32,
        "DATA.BATCH_SIZE": LARGER_BATCHES.get(plain.DATA.DATASET, 4),
        "DATA.NUM_WORKERS": 0,
        "TRAIN.EPOCHS": 1,
        "TRAIN.WARMUP_EPOCHS": 0,
        "OUTPUT": tmp_path / "out",
        "LOGGER": "none",
    }
    config = get_config(CONFIGS / file, [str(text) for pair in options.items() for text in pair])
    run = prepare(config, Ranks(0, 1, torch.device("cpu")))
    run.train()
    run.close()
    folder = tmp_path / "out" / plain.MODEL.NAME
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 1
    assert summary["steps"] >= 2
    (row,) = csv.DictReader((folder / "metrics.csv").open())
    assert math.isfinite(float(row["train_loss"]))
    assert 0 <= summary["top1"] <= summary["top5"] <= 100


# ------------------------------------------------------------------------------------------------
# the files of accelerate's launcher


def test_the_launchers_files_have_the_originals_names():
    names = ["zero1", "zero1_wo_loss_scale", "zero3_offload", "zero3_offload_wo_loss_scale"]
    found = {path.name for path in (CONFIGS / "accelerate").glob("*.yaml")}
    assert found == {f"dist_8gpus_{name}.yaml" for name in ["ddp_fp16", *names]}
    found = {path.name for path in (CONFIGS / "accelerate" / "deepspeed").iterdir()}
    assert found == {f"ds_config_{name}.json" for name in names}


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("scales", [True, False])
def test_a_deepspeed_file_says_what_its_name_says(stage: int, scales: bool):
    name = {1: "zero1", 3: "zero3_offload"}[stage] + ("" if scales else "_wo_loss_scale")
    text = (CONFIGS / "accelerate" / f"dist_8gpus_{name}.yaml").read_text()
    settings = yaml.safe_load(text)
    assert settings["num_processes"] == 8
    assert f"accelerate/dist_8gpus_{name}.yaml" in text
    options = json_options(settings["deepspeed_config"]["deepspeed_config_file"])
    expected = {
        "TRAIN.ZERO_STAGE": str(stage),
        "TRAIN.ACCUMULATION_STEPS": "4",
        "TRAIN.CLIP_GRAD": "5.0",
        "AMP_OPT_LEVEL": "O1",
        "AMP_TYPE": "float16",
    }
    if stage == 3:
        expected |= {"TRAIN.OFFLOAD_OPTIMIZER": "cpu", "TRAIN.OFFLOAD_PARAM": "cpu"}
    if not scales:
        expected["TRAIN.GRAD_SCALER"] = "False"
    assert options == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp_fp16", "zero3_offload_wo_loss_scale"])
def test_accelerate_launches_the_one_train_py(name: str, tmp_path: Path):
    """With the real launcher, on two ranks of the processor."""
    script = [ROOT / "classification" / "train.py", "--output", tmp_path]
    script += ["--cfg", CONFIGS / "digits" / "internimage_n_digits_32.yaml", "--opts"]
    script += ["TRAIN.EPOCHS", "1", "MODEL.ARCH", "internimage_test_t", "LOGGER", "none"]
    launcher = [Path(sys.executable).with_name("accelerate"), "launch", "--num_processes", "2"]
    launcher += ["--main_process_port", "0"]
    launcher += ["--config_file", CONFIGS / "accelerate" / f"dist_8gpus_{name}.yaml"]
    done = subprocess.run(
        [*map(str, [*launcher, *script])],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "internimage_n_digits_32"
    assert json.loads((folder / "summary.json").read_text())["world_size"] == 2
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    strategy = "ddp" if name == "ddp_fp16" else "deepspeed"
    assert (saved["TRAIN"]["STRATEGY"], saved["AMP_OPT_LEVEL"]) == (strategy, "O1")
    assert saved["TRAIN"]["ACCUMULATION_STEPS"] == (1 if name == "ddp_fp16" else 4)
    assert saved["TRAIN"]["GRAD_SCALER"] == ("wo_loss_scale" not in name)


# ------------------------------------------------------------------------------------------------
# docs/recipes.md


def test_the_page_has_every_recipe_and_every_flag():
    page = (ROOT / "docs" / "recipes.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)` \| (\d+) x (\d+)", page, re.MULTILINE)
    assert sorted(f"{name}.yaml" for name, _, _ in rows) == ALL
    for name, _, images in rows:
        assert get_config(CONFIGS / f"{name}.yaml").DATA.BATCH_SIZE == int(images), name
    for name, row in TABLE.items():
        in_paper = f"without_lr_decay/{name}" if row[-1] else name
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{in_paper}`"))
        assert f"| {row[-1] or 'none'} |" in line
    for flag in FLAGS:
        assert f"`{flag.name}`" in page, flag.name
    for parent in (CONFIGS / "_base_").iterdir():
        assert f"`{parent.name}`" in page, parent.name
    defaults = dict(flatten(get_default_config()))
    for key in re.findall(r"`((?:DATA|MODEL|TRAIN|AUG|TEST)\.[A-Z0-9_.]+)`", page):
        assert key in defaults, key
