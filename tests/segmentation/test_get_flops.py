"""Counts of whole segmentors against the published tables."""

from __future__ import annotations

import copy
import re
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.complexity import count_config

CONFIGS = Path(__file__).resolve().parents[2] / "segmentation" / "configs"
MASK2FORMER_CITYSCAPES = "cityscapes/mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes"

PUBLISHED = [
    # config, height and width of the image, parameters in millions and FLOPs in 10^9
    ("ade20k/upernet_internimage_t_512_160k_ade20k", (512, 2048), 59, 944),
    ("ade20k/upernet_internimage_xl_640_160k_ade20k", (640, 2560), 368, 3142),
    ("ade20k/upernet_internimage_h_896_160k_ade20k", (896, 896), 1120, 3566),
    (
        "cityscapes/segformer_internimage_l_512x1024_160k_mapillary2cityscapes",
        (1024, 2048),
        220,
        1580,
    ),
    (MASK2FORMER_CITYSCAPES, (1024, 2048), 1094, 7878),
    ("nyu_depth_v2/mask2former_internimage_h_480_40k_nyu", (480, 480), 1094, 867),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "parameters", "flops"), PUBLISHED)
def test_counts_are_those_of_the_tables(
    name: str, shape: tuple[int, int], parameters: float, flops: float
):
    complexity, is_abstract = count_config(Config.fromfile(CONFIGS / f"{name}.py"), *shape)
    assert is_abstract
    assert complexity.parameters / 1e6 == pytest.approx(parameters, abs=0.51)
    assert complexity.total / 1e9 == pytest.approx(flops, rel=0.002)


@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_the_script_counts_an_image_of_the_tables_when_not_told_otherwise(monkeypatch, capsys):
    name, _, _, flops = PUBLISHED[0]
    monkeypatch.setattr("internimage.processes.leave", lambda code: print("code", code))
    monkeypatch.setattr(sys, "argv", ["get_flops.py", str(CONFIGS / f"{name}.py")])
    runpy.run_path(str(CONFIGS.parent / "get_flops.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "512 x 2048\n" in printed
    assert "code 0\n" in printed
    (counted,) = re.findall(r"FLOPs +(\d+\.\d+) G", printed)
    assert float(counted) == pytest.approx(flops, rel=0.002)


@pytest.mark.slow
def test_attention_of_mask2former_is_counted_for_itself():
    config = copy.deepcopy(Config.fromfile(CONFIGS / f"{MASK2FORMER_CITYSCAPES}.py"))
    head = config.model.decode_head
    complexity, _ = count_config(config, 64, 128)
    queries, width, layers = head.num_queries, head.feat_channels, 9
    pixels = [2 * 4, 4 * 8, 8 * 16]  # of the three maps that the layers look at in turn
    cross = sum(
        2 * (queries + pixels[i % 3]) * width**2 + 2 * queries * pixels[i % 3] * width
        for i in range(layers)
    )
    among_queries = layers * (4 * queries * width**2 + 2 * queries**2 * width)
    masks = (layers + 1) * queries * width * (16 * 32)  # of each layer and before the first
    assert complexity.attention == cross + among_queries + masks
