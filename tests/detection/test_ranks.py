"""Ranks: who names them, how many work on a CPU, and what a layer makes of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.ranks import (
    choose_gpu,
    name_launcher,
    replace_sync_batch_norm,
)
from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from tests.detection.script_runs import ROOT, Done, run_script

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "5",
}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}


@pytest.mark.parametrize(
    ("launcher", "environment", "expected"),
    [
        (None, {}, ("none", None, None)),
        ("none", {}, ("none", None, None)),
        (None, TORCHRUN, ("pytorch", "1", "2")),
        ("pytorch", TORCHRUN, ("pytorch", "1", "2")),
        ("slurm", SRUN, ("pytorch", "3", "4")),
        ("mpi", MPIRUN, ("pytorch", "2", "4")),
    ],
)
def test_the_launcher_is_who_shows_in_the_environment(launcher, environment, expected):
    environment = dict(environment)
    kind = name_launcher(launcher, None, environment)
    assert (kind, environment.get("RANK"), environment.get("WORLD_SIZE")) == expected


def test_a_local_rank_that_is_typed_stands_in_for_the_environments():
    given, typed = dict(TORCHRUN), {"RANK": "1", "WORLD_SIZE": "2"}
    name_launcher(None, 7, given)
    name_launcher(None, 7, typed)
    assert (given["LOCAL_RANK"], typed["LOCAL_RANK"]) == ("1", "7")


@pytest.mark.parametrize(
    ("launcher", "environment", "message"),
    [
        ("pytorch", {}, "torchrun's variables"),
        ("slurm", {}, "srun's variables"),
        ("mpi", {}, "OMPI_COMM_WORLD_RANK"),
        ("mpi", MPIRUN | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "MASTER_ADDR"),
        ("none", TORCHRUN, "all would do the same work"),
    ],
)
def test_a_launcher_that_is_not_there_or_denied_is_refused(launcher, environment, message):
    with pytest.raises(ValueError, match=message):
        name_launcher(launcher, None, dict(environment))


def test_a_gpu_that_is_not_there_is_refused():
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=rf"number of GPUs = {count}, got {count}"):
        choose_gpu(count)


def test_synchronised_norms_are_plain_ones_in_one_process():
    norms = [{"norm_cfg": {"type": "SyncBN", "requires_grad": True}} for _ in range(3)]
    config = Config({"model": {"backbone": {"norm": {"type": "LN"}}, "heads": norms}})
    assert replace_sync_batch_norm(config) == 3
    assert config.model.heads[2].norm_cfg == {"type": "BN", "requires_grad": True}
    assert config.model.backbone.norm.type == "LN"


@pytest.mark.slow
def test_two_ranks_train_and_evaluate_as_one_process_with_twice_the_batch(
    trained: tuple[Path, Done],
):
    folder = trained[0].parent
    # The loss of the proposals alone: all anchors of an image count, so that images weigh the same.
    (folder / "ranks.py").write_text(
        '_base_ = ["tiny.py"]\n'
        "model = dict(\n"
        "    backbone=dict(drop_path_rate=0.0),\n"
        "    roi_head=dict(bbox_head=dict(loss_cls=dict(loss_weight=0.0),\n"
        "                                 loss_bbox=dict(loss_weight=0.0)),\n"
        "                  mask_head=dict(loss_mask=dict(loss_weight=0.0))),\n"
        "    train_cfg=dict(rpn=dict(assigner=dict(neg_iou_thr=0.7),\n"
        "                            sampler=dict(num=100_000, pos_fraction=1.0))),\n"
        "    test_cfg=dict(rcnn=dict(score_thr=0.0)))\n"
        "pipeline = [dict(type='LoadImageFromFile'),\n"
        "    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),\n"
        "    dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='PackDetInputs')]\n"
        "train_dataloader = dict(dataset=dict(pipeline=pipeline))\n"
        'optim_wrapper = dict(_delete_=True, type="OptimWrapper",\n'
        '    optimizer=dict(type="SGD", lr=0.01))\n'
        "train_cfg = dict(max_epochs=1)\n"
        'load_from = "run/epoch_1.pth"\n'
    )

    def script(name: str, *arguments: str) -> str:
        done = run_script(name, *arguments, folder=folder)
        assert done.code == 0, done.errors
        return done.printed

    printed = script("dist_train.sh", "ranks.py", "2", "--work-dir", "ranks", "--no-validate")
    # Eight images, one a rank and step.
    assert re.findall(r"Epoch\(train\)\s+\[1\]\[(\d)/(\d)\]", printed) == [
        (str(step), "4") for step in range(1, 5)
    ]
    script(
        *("train.py", "ranks.py", "--work-dir", "whole", "--no-validate"),
        *("--cfg-options", "train_dataloader.batch_size=2"),
    )
    start, ranks, whole = (
        read_checkpoint(folder / name)["state_dict"]
        for name in ("run/epoch_1.pth", "ranks/epoch_1.pth", "whole/epoch_1.pth")
    )
    moved = sum(float((whole[key] - start[key]).square().sum()) for key in start)
    apart = sum(float((whole[key] - ranks[key]).square().sum()) for key in start)
    assert moved > 1e-6
    assert apart < 1e-6 * moved  # a thousandth of the way; without the other's images it is all

    dumps = []
    for name, more in (("dist_test.sh", ["2"]), ("test.py", [])):
        script(
            *(name, "ranks.py", "ranks/epoch_1.pth", *more),
            *("--work-dir", "tested", "--out", f"{name}.pkl"),
        )
        dumps.append(mmengine.load(folder / f"{name}.pkl"))
    assert len(dumps[0]) == len(dumps[1]) == 3
    for found, expected in zip(*dumps, strict=True):
        assert found["img_id"] == expected["img_id"]
        ours, theirs = found["pred_instances"], expected["pred_instances"]
        assert len(theirs["scores"]) > 20
        for key in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(ours[key], theirs[key])


@pytest.mark.slow
def test_a_signal_to_one_rank_saves_whole_before_any_of_them_leaves(tiny_folder: Path):
    # Slurm ends the others as soon as one has left.
    (tiny_folder / "slow_disk.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "write = Path.write_bytes\n"
        "def write_bytes(path, data):\n"
        "    if 'stopped.pth' in path.name:\n"
        "        time.sleep(4)\n"
        "    return write(path, data)\n"
        "Path.write_bytes = write_bytes\n"
    )
    (tiny_folder / "slow.py").write_text(
        '_base_ = ["tiny.py"]\n'
        'custom_imports = dict(imports=["internimage.integrations.openmmlab",\n'
        '    "internimage.integrations.openmmlab.detection", "slow_disk"])\n'
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-u", str(ROOT / "detection" / "train.py"), "slow.py"]
            + ["--work-dir", "slow"],
            cwd=tiny_folder,
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tiny_folder)},
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in (0, 1)
    ]
    first, second = processes
    try:
        assert first.stdout is not None
        for line in first.stdout:
            if "[1][2/4]" in line:
                second.send_signal(signal.SIGUSR1)
                break
        drain = threading.Thread(target=first.stdout.read)
        drain.start()
        assert second.wait(120) == 128 + signal.SIGUSR1
        assert (tiny_folder / "slow" / "stopped.pth").is_file()
        assert (tiny_folder / "slow" / "last_checkpoint").read_text().endswith("stopped.pth")
        assert first.wait(120) == 128 + signal.SIGUSR1
        drain.join()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert read_checkpoint(tiny_folder / "slow" / "stopped.pth")["meta"]["iter"] >= 2


@pytest.mark.slow
def test_ranks_end_with_the_line_of_the_mistake(tiny_folder: Path):
    done = run_script(
        "dist_train.sh",
        *("tiny.py", "2", "--work-dir", "nothing", "--cfg-options", "data_root=/no"),
        folder=tiny_folder,
    )
    assert done.code == 1  # torchrun's own
    lines = [line for line in done.errors.splitlines() if line.startswith("train.py: error:")]
    assert lines == [lines[0]]
    assert "/no/annotations/train.json" in lines[0]
    assert not (tiny_folder / "nothing").exists()
