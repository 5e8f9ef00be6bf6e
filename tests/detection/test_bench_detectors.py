"""The benchmarks of detection print the rows that their records show, with right figures."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from detection.benchmarks import bench_loader
from detection.benchmarks.bench_layouts import count_copies, roi_align_error
from detection.benchmarks.contenders import (
    CONTENDERS,
    build,
    forward_pass,
    make_regions,
)
from internimage.complexity import count_complexity, count_parameters
from tests.detection.tiny_detectors import ROOT

BENCHMARKS = ROOT / "detection" / "benchmarks"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, BENCHMARKS / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_detector_has_times_the_backbones_share_sizes_and_memory():
    printed = run(
        "bench_detectors.py", "--height", "64", "--width", "96", "--rounds", "1", "--threads", "1",
        "--pyramid", "16", "--only", "internimage_t",
    )  # fmt: skip
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:2] == "| "]
    assert [row[0] for row in rows] == ["backbone", "InternImage-T"] * 2
    time_row, size_row = rows[1], rows[3]
    images, whole, cpu, backbone, share, *ratios = time_row[1:]
    assert float(images) == pytest.approx(1e3 / float(whole), rel=0.01)
    assert 0 < float(backbone) < float(whole)
    assert float(share.rstrip(" %")) == pytest.approx(100 * float(backbone) / float(whole), abs=1)
    assert ratios == ["1.00"] * 4
    model = build(CONTENDERS["internimage_t"], width=16)
    assert float(size_row[1]) == pytest.approx(count_parameters(model) / 1e6, abs=0.06)
    assert float(size_row[2]) > count_complexity(model.backbone, (64, 96)).total / 1e9
    before, peak, above = map(float, size_row[3:])
    assert 0 < before < peak
    assert above == pytest.approx(peak - before, abs=1.1)


def test_the_backbone_copies_each_map_once_and_nothing_else_is_copied():
    model = build(CONTENDERS["internimage_t"], width=16)
    copies = count_copies(model, 64, 96)
    assert [(copy.part, copy.shape) for copy in copies] == [
        ("backbone", (1, 64, 16, 24)),
        ("backbone", (1, 128, 8, 12)),
        ("backbone", (1, 256, 4, 6)),
        ("backbone", (1, 512, 2, 3)),
    ]
    assert copies[0].mib == pytest.approx(64 * 16 * 24 * 4 / 2**20)


def test_the_regions_of_mmcv_read_other_layouts_wrongly():
    """Why the backbone's maps are contiguous; when this fails, that can be thought over."""
    assert roi_align_error() > 0.1


def test_a_pass_runs_the_box_head_on_a_thousand_regions_and_the_mask_head_on_a_hundred():
    model = build(CONTENDERS["resnet_50"], width=16)
    seen = {}
    for name in ("bbox_head", "mask_head"):
        getattr(model.roi_head, name).register_forward_hook(
            lambda _, inputs, __, name=name: seen.update({name: len(inputs[0])})
        )
    forward_pass(model, 64, 96, "cpu")()
    assert seen == {"bbox_head": 1000, "mask_head": 100}


def test_the_regions_of_all_contenders_lie_inside_the_image():
    boxes = make_regions(256, 320).bboxes
    assert boxes.shape == (1000, 4)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all() and (boxes <= torch.tensor([320, 256, 320, 256])).all()


@pytest.mark.slow
def test_the_loader_has_a_row_for_each_pipeline_whose_parts_sum_up(monkeypatch, capsys):
    monkeypatch.setattr(bench_loader, "use_one_core", lambda: None)  # of this process, for good
    bench_loader.main(["--images", "2", "--rounds", "1"])
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| ([^|]*\d\S* ?\S*) \| ([\d.]+) \| ([\d.]+) \| (.*) \|$", printed, re.M)
    rows += re.findall(r"^\| (boxes, many[^|]*) \| ([\d.]+) \| ([\d.]+) \| (.*) \|$", printed, re.M)
    assert len({row[0] for row in rows}) == 4
    for _, images, whole, parts in rows:
        steps = dict(part.rsplit(" ", 1) for part in parts.split(", "))
        assert {"LoadImageFromFile", "LoadAnnotations", "PackDetInputs"} <= set(steps)
        total = sum(map(float, steps.values()))
        assert total == pytest.approx(float(whole), abs=0.05 * (len(steps) + 1))
        assert float(images) == pytest.approx(1e3 / float(whole), rel=0.05)


def test_a_made_outline_lies_inside_its_box_and_its_box_inside_the_image():
    generator = np.random.default_rng(0)
    for _ in range(50):
        polygon, (left, top, width, height) = bench_loader.outline(generator)
        x, y = torch.tensor(polygon).view(-1, 2).T
        assert (x.min(), x.max()) == pytest.approx((left, left + width), abs=1e-3)
        assert (y.min(), y.max()) == pytest.approx((top, top + height), abs=1e-3)
        assert 0 <= left and left + width <= 640 and 0 <= top and top + height <= 480
