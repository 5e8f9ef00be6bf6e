"""The benchmarks of segmentation print the rows that their records show, with right figures."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from internimage.complexity import count_complexity, count_parameters
from segmentation.benchmarks.contenders import CONTENDERS, build, forward_pass, make_input
from tests.segmentation.tiny_segmentors import ROOT

BENCHMARKS = ROOT / "segmentation" / "benchmarks"


def rows_of(script: str, *arguments: str) -> list[list[str]]:
    """Run a benchmark; return the rows of its tables, heads included."""
    command = [sys.executable, BENCHMARKS / script, *arguments, "--threads", "1"]
    done = subprocess.run(
        [*command, "--channels", "16"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = (line for line in done.stdout.splitlines() if line[:2] == "| ")
    return [line.strip("| ").split(" | ") for line in lines]


@pytest.mark.slow
def test_a_segmentor_has_times_the_backbones_share_sizes_and_memory():
    rows = rows_of(
        "bench_segmentors.py", "--height", "64", "--width", "96", "--rounds", "1",
        "--only", "internimage_t",
    )  # fmt: skip
    assert [row[0] for row in rows] == ["backbone", "InternImage-T"] * 2
    images, whole, _, backbone, share, *ratios = rows[1][1:]
    assert float(images) == pytest.approx(1e3 / float(whole), rel=0.01)
    assert 0 < float(backbone) < float(whole)
    assert float(share.rstrip(" %")) == pytest.approx(100 * float(backbone) / float(whole), abs=1)
    assert ratios == ["1.00"] * 4
    model = build(CONTENDERS["internimage_t"], width=16)
    assert float(rows[3][1]) == pytest.approx(count_parameters(model) / 1e6, abs=0.06)
    assert float(rows[3][2]) > count_complexity(model.backbone, (64, 96)).total / 1e9
    before, peak, above = map(float, rows[3][3:])
    assert 0 < before < peak
    assert above == pytest.approx(peak - before, abs=1.1)


@pytest.mark.slow
def test_a_large_image_has_a_row_for_each_way():
    rows = rows_of(
        "bench_sliding.py", "--height", "512", "--width", "768", "--crop", "256", "--stride", "192",
        "--classes", "150", "--only", "windows", "mmseg_windows",
    )  # fmt: skip
    assert [row[0] for row in rows] == ["way", "sliding windows", "mmseg's sliding windows"]
    ours, theirs = memory_of(rows)
    scores = 4 * 150 * 512 * 768 / 2**20  # MiB
    # Ours: the scores once. mmseg's: with a padded window's, or their mean, beside them.
    assert scores < ours < 1.5 * scores
    assert theirs > 1.9 * scores


@pytest.mark.slow
def test_labels_alone_of_a_photo_need_no_scores_at_its_size():
    rows = rows_of(
        "bench_sliding.py", "--height", "128", "--width", "192", "--photo", "5",
        "--classes", "150", "--only", "whole", "whole_labels",
    )  # fmt: skip
    assert [row[0] for row in rows] == ["way", "the whole image", "the whole image, labels alone"]
    scores, labels = memory_of(rows)
    at_the_photos_size = 4 * 150 * 640 * 960 / 2**20  # MiB
    assert scores > at_the_photos_size
    assert labels < 0.5 * at_the_photos_size


def memory_of(rows: list[list[str]]) -> list[float]:
    """Return the MiB above those held before, of each row but the head."""
    found = []
    for row in rows[1:]:
        before, peak, above = map(float, row[1:4])
        assert above == pytest.approx(peak - before, abs=1.1)
        found.append(above)
    return found


@pytest.mark.parametrize("name", ["internimage_t", "resnet_50", "swin_t"])
def test_a_pass_ends_with_the_label_of_every_pixel(name):
    model = build(CONTENDERS[name], num_classes=7, width=16)
    labels = forward_pass(model, 64, 96, "cpu")()
    assert labels.shape == (1, 64, 96)
    assert 1 < len(labels.unique()) <= 7


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_all_ways_to_segment_a_large_image_give_every_pixel_the_same_label(mode):
    """What bench_sliding.py compares differs in memory and in nothing else."""
    windows = dict(mode=mode)
    if mode == "slide":
        windows |= dict(crop_size=(64, 64), stride=(48, 48))
    labels = []
    for kind, more in (
        ("EncoderDecoder", {}),
        ("InternImageSegmentor", {}),
        ("InternImageSegmentor", {"keep_scores": False}),
    ):
        options = dict(kind=kind, num_classes=11, width=16, test_cfg=windows | more)
        model = build(CONTENDERS["internimage_t"], **options)
        labels.append(forward_pass(model, 96, 160, "cpu", photo=2)())
    assert labels[0].shape == (1, 192, 320)
    assert labels[0].unique().numel() > 1
    for ours in labels[1:]:
        assert (labels[0] == ours).float().mean() > 0.999  # sums in another order


def test_all_contenders_see_the_same_image():
    image, sample = make_input(32, 48)
    assert image.shape == (1, 3, 32, 48)
    assert torch.equal(image, make_input(32, 48)[0])
    assert sample.ori_shape == (32, 48)
    assert make_input(32, 48, photo=4)[1].ori_shape == (128, 192)
