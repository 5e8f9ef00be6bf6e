"""demo.py: the truth of a data set drawn before the training, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from autonomous_driving.demo import main as demo
from internimage.integrations.openmmlab.driving.data.pickles import read_pickle, write_pickle
from tests.autonomous_driving.nuscenes_folder import SHAPE, write_folder
from tests.script_runs import run_here
from tests.trained_runs import ROOT
from tools.make_nuscenes_infos import write_infos

CONFIG = "autonomous_driving/configs/occupancy_prediction/bevformer_intern_occ_tiny.py"

pytestmark = pytest.mark.usefixtures("signals_and_warnings_as_before")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("nuscenes"))
    write_infos(folder, can_bus=folder.parent / "can_bus", version="v1.0-mini")
    return folder


def run(*words: object) -> int:
    return run_here(demo, *map(str, words), folder=ROOT)


def options(data: Path) -> list[str]:
    shape = f"test_dataloader.dataset.pipeline.1.shape={list(SHAPE)}"
    return ["--device", "cpu", "--cfg-options", f"data_root={data}", shape]


@pytest.mark.slow
def test_without_a_checkpoint_the_truth_is_drawn(data: Path, tmp_path: Path, capsys):
    out = tmp_path / "pictures"
    assert run(CONFIG, "--out", out, "--limit", 5, "--animate", "png", *options(data)) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed) == sorted(out.iterdir())
    assert len(printed) == 5 + 2  # four frames of the first drive, one of the second
    for path, count in zip(printed[5:], (4, 1), strict=True):
        with Image.open(path) as animation:
            assert getattr(animation, "n_frames", 1) == count


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--out", "x"], "expected CONFIG"),
        ([CONFIG], "required: --out"),
        ([CONFIG, "--out", "x", "--limit", "0"], "expected a whole number >= 1, got 0"),
        ([CONFIG, "--out", "x", "--animate", "mp4"], "invalid choice: 'mp4'"),
        ([CONFIG, "--out", "x", "--score-thr", "2"], "expected a number from 0 to 1, got 2"),
        (
            [CONFIG, "--out", "x", "--device", "cuda:99"],
            "expected a device of this machine, got --device cuda:99 (",
        ),
        ([CONFIG, "--out", "x", "--limt", "2"], "did you mean --limit?"),
        (
            ["detection/configs/digit_scenes/mask_rcnn_internimage_n_fpn.py", "--out", "x"],
            "expected a config of autonomous_driving",
        ),
        ([CONFIG, "--out", "x"], "expected a file at test_dataloader.dataset.ann_file"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], reason: str, capsys):
    options = ["--cfg-options", "data_root=nowhere"] if CONFIG in words else []
    assert run(*words, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo.py: error: ")
    assert reason in line
    assert not (ROOT / "x").exists()


@pytest.mark.slow
def test_a_frame_without_truth_is_named_where_there_is_no_checkpoint(
    data: Path, tmp_path: Path, capsys
):
    bare = tmp_path / "bare.pkl"
    content = read_pickle(data / "occ_infos_temporal_train.pkl")
    infos = sorted(content["infos"], key=lambda info: (info["scene_token"], info["timestamp"]))
    del infos[1]["occ_gt_path"]
    write_pickle(bare, content)
    words = [*options(data), f"test_dataloader.dataset.ann_file={bare}"]
    assert run(CONFIG, "--out", tmp_path / "pictures", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"got none of frame {infos[1]['token']}" in line and "expected CHECKPOINT, or" in line
    assert not list((tmp_path / "pictures").iterdir())
    assert run(CONFIG, "--out", tmp_path / "pictures", "--limit", 1, *words) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_a_file_where_the_pictures_are_to_go_is_one_line(data: Path, tmp_path: Path, capsys):
    (tmp_path / "file").touch()
    assert run(CONFIG, "--out", tmp_path / "file", *options(data)) == 2
    assert f"a folder for the pictures, got {tmp_path / 'file'}: " in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(data: Path, tmp_path: Path, capsys):
    torch.save({"state_dict": {"backbone.conv.weight": torch.ones(1)}}, tmp_path / "other.pth")
    out = tmp_path / "pictures"
    assert run(CONFIG, tmp_path / "other.pth", "--out", out, *options(data)) == 2
    assert "expected a checkpoint of this model, got" in capsys.readouterr().err
    assert not out.exists()
