"""Counts of whole detectors against the published tables."""

from __future__ import annotations

import re
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from internimage.integrations.openmmlab.scripts.complexity import count_config, main
from internimage.integrations.openmmlab.scripts.config_file import read_config
from tests.detection.script_runs import CONFIGS
from tests.detection.small_dino import small_config


@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [
        # parameters in millions and FLOPs in 10^9, of the result tables
        ("mask_rcnn_internimage_t_fpn_1x_coco", 49, 270),
        ("mask_rcnn_internimage_s_fpn_1x_coco", 69, 340),
        ("mask_rcnn_internimage_b_fpn_1x_coco", 115, 501),
        ("cascade_internimage_l_fpn_1x_coco", 277, 1399),
        ("cascade_internimage_xl_fpn_1x_coco", 387, 1782),
    ],
)
def test_counts_are_those_of_the_tables(name: str, parameters: float, flops: float):
    config = Config.fromfile(CONFIGS / "coco" / f"{name}.py")
    complexity, is_abstract = count_config(config, 800, 1280)
    assert is_abstract
    assert complexity.parameters / 1e6 == pytest.approx(parameters, abs=0.51)
    assert complexity.total / 1e9 == pytest.approx(flops, rel=0.005)


def small_dino() -> Config:
    return Config({"model": small_config(), "default_scope": "mmdet"})


def test_dino_is_counted_without_its_values():
    once, is_abstract = count_config(small_dino(), 64, 96)
    assert is_abstract
    twice, _ = count_config(small_dino(), 64, 192)
    # The stages grow with the image, the queries of the decoder do not.
    assert twice.sampling == 2 * once.sampling
    assert once.macs < twice.macs < 2 * once.macs
    # self-attention of 2 decoder layers: projections of 10 queries, their products, width 32
    assert once.attention == twice.attention == 2 * (4 * 10 * 32 * 32 + 2 * 10 * 10 * 32)


@MODELS.register_module()
class DependsOnValues(nn.Module):
    """A model whose last layer runs where an activation is positive.

    Args:
        data_preprocessor: is not used.
    """

    def __init__(self, data_preprocessor: Any = None) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1)
        self.first, self.second = nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1)

    def forward(self, image: Tensor, samples: Any, mode: str) -> Tensor:
        """Map an image (1, 3, H, W) to (1, 5 or 6, H, W)."""
        x = self.first(self.backbone(image))
        return self.second(x) if x.mean() > 0 else x


def test_a_head_that_depends_on_values_is_run():
    complexity, is_abstract = count_config(Config({"model": {"type": "DependsOnValues"}}), 8, 16)
    assert not is_abstract
    assert complexity.macs == 8 * 16 * (3 * 4 + 4 * 5)
    assert complexity.attention == complexity.sampling == 0


@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_the_script_prints_the_counts_and_rounds_the_shape_up(tiny_folder, capsys):
    config = str(tiny_folder / "tiny.py")
    assert main("get_flops.py", CONFIGS, [config, "--shape", "50", "90"]) == 0
    printed = capsys.readouterr().out
    assert "64 x 96 (of 50 x 90)" in printed
    counts = re.findall(r"(\d+\.\d+) [GM]", printed)
    complexity, _ = count_config(read_config(config), 64, 96)
    assert float(counts[0]) == pytest.approx(complexity.parameters / 1e6, abs=0.006)
    assert float(counts[1]) == pytest.approx(complexity.total / 1e9, abs=0.006)
