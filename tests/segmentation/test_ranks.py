"""Two ranks on a CPU learn and predict as one process with all of the images does."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import mmengine
import pytest

from internimage.integrations.openmmlab.scripts import test as test_script
from internimage.integrations.openmmlab.scripts import train as train_script
from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from tests.script_runs import run_here
from tests.segmentation.tiny_segmentation_sets import CONFIGS, run_script

# Norms of a group look at one image alone; all pixels have a class, so that images weigh the same.
RANKS = """
_base_ = ["tiny.py"]
norm_cfg = dict(_delete_=True, type="GN", num_groups=4)
model = dict(
    backbone=dict(drop_path_rate=0.0),
    decode_head=dict(norm_cfg=norm_cfg, dropout_ratio=0.0),
    auxiliary_head=dict(norm_cfg=norm_cfg, dropout_ratio=0.0))
train_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=3), dict(type="PackSegInputs")]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
model["data_preprocessor"] = dict(size=(48, 64))
optim_wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05))
param_scheduler = None
train_cfg = dict(max_iters=6)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_two_ranks_do_the_work_of_one(tiny_folder: Path):
    folder = tiny_folder
    (folder / "ranks.py").write_text(RANKS)

    def script(name: str, *arguments: str) -> str:
        done = run_script(name, *arguments, folder=folder)
        assert done.code == 0, done.errors
        return done.printed

    printed = script("dist_train.sh", "ranks.py", "2", "--work-dir", "ranks", "--no-validate")
    assert len(re.findall(r"Iter\(train\)\s+\[\s*\d/6\]", printed)) == 6
    main = functools.partial(train_script.main, "train.py", CONFIGS)
    options = ("--cfg-options", "train_dataloader.batch_size=2")
    arguments = ("--work-dir", "whole", "--no-validate", *options)
    assert run_here(main, "ranks.py", *arguments, folder=folder) == 0
    start = ("--work-dir", "start", "--no-validate", "--cfg-options", "train_cfg.max_iters=1")
    still = "optim_wrapper.optimizer.lr=0.0"
    assert run_here(main, "ranks.py", *start, still, folder=folder) == 0
    first, ranks, whole = (
        read_checkpoint(folder / name)["state_dict"]
        for name in ("start/iter_1.pth", "ranks/iter_6.pth", "whole/iter_6.pth")
    )
    moved = sum(float((whole[key] - first[key]).square().sum()) for key in first)
    apart = sum(float((whole[key] - ranks[key]).square().sum()) for key in first)
    assert moved > 1e-6
    assert apart < 1e-6 * moved  # a thousandth of the way; without the other's images it is all

    test = functools.partial(test_script.main, "test.py", CONFIGS)
    weights = ("ranks.py", "ranks/iter_6.pth")
    script("dist_test.sh", *weights, "2", "--work-dir", "by_two", "--out", "by_two.pkl", "--tta")
    one = ("--work-dir", "by_one", "--out", "by_one.pkl", "--tta")
    assert run_here(test, *weights, *one, folder=folder) == 0
    two, alone = (mmengine.load(folder / f"{name}.pkl") for name in ("by_two", "by_one"))
    assert [found["img_path"] for found in two] == [found["img_path"] for found in alone]
    assert len(two) == 3
    for ours, theirs in zip(two, alone, strict=True):
        assert (ours["labels"] == theirs["labels"]).mean() > 0.999
    scores, expected = (
        json.loads((folder / name / "metrics.json").read_text()) for name in ("by_two", "by_one")
    )
    assert scores["mIoU"] == pytest.approx(expected["mIoU"], abs=1e-3)
