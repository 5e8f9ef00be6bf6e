"""Training and evaluation of driving from the command line, on drawn scenes."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
from mmengine.registry import MODELS

from internimage.integrations.openmmlab.scripts import test as testing
from internimage.integrations.openmmlab.scripts import train as training
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.runner import NamingRunner
from tests.config_facts import ROOT
from tests.script_runs import run_here, run_script

CONFIGS = ROOT / "autonomous_driving" / "configs"
OCCUPANCY = CONFIGS / "occupancy_prediction" / "bevformer_intern_occ_tiny.py"
LANES = CONFIGS / "openlane-v2" / "internimage_tiny.py"
VECTOR_MAP = CONFIGS / "Online-HD-Map-Construction" / "vectormapnet_intern_tiny.py"
DETECTOR = ROOT / "detection/configs/digit_scenes/mask_rcnn_internimage_n_fpn.py"

train = functools.partial(training.main, "train.py", CONFIGS)
test = functools.partial(testing.main, "test.py", CONFIGS)
test.__test__ = False  # type: ignore[attr-defined]


def option(scenes: Path) -> str:
    return f"data_root={scenes / 'nuscenes'}"


@pytest.fixture(scope="module")
def short_run(driving_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work dir with the checkpoint of two steps on occupancy."""
    folder = tmp_path_factory.mktemp("short")
    code = run_here(
        train,
        *(str(OCCUPANCY), "--work-dir", "run", "--seed", "1", "--no-validate"),
        *("--cfg-options", option(driving_scenes), "train_cfg.max_iters=2"),
        folder=folder,
    )
    assert code == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_predictions_are_drawn_kept_and_written_for_the_server(
    short_run: Path, driving_scenes: Path, tmp_path: Path
):
    arguments = [str(OCCUPANCY), str(short_run / "iter_2.pth"), "--work-dir", "w"]
    more = ["--cfg-options", option(driving_scenes)]
    outputs = ["--format-only", "--show-dir", "shown", "--out", "all.pkl"]
    assert run_here(test, *arguments, *outputs, *more, folder=tmp_path) == 0
    listed = json.loads((tmp_path / "w/results/submission.json").read_text())["results"]
    written = {path.name for path in (tmp_path / "w/results").glob("*.npz")}
    assert set(listed.values()) == written and len(written) > 1
    assert len(list((tmp_path / "shown").glob("*.png"))) == len(written)
    assert (tmp_path / "all.pkl").stat().st_size > 0
    assert not (tmp_path / "w/metrics.json").exists()  # no score was asked for


@pytest.mark.slow
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_two_ranks_share_the_scenes_and_score_as_one(
    short_run: Path, driving_scenes: Path, tmp_path: Path
):
    given = (str(OCCUPANCY), str(short_run / "iter_2.pth"))
    more = ("--cfg-options", option(driving_scenes))
    done = run_script(
        "autonomous_driving/dist_test.sh", *given, "2", "--work-dir", "two", *more, folder=tmp_path
    )
    assert done.code == 0, done.errors
    assert run_here(test, *given, "--work-dir", "one", *more, folder=tmp_path) == 0
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")
    )
    assert one == two
    assert 0 < one["mIoU"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "part"), [(OCCUPANCY, "nuscenes"), (LANES, "openlane"), (VECTOR_MAP, "argoverse2")]
)
def test_every_weight_learns_which_several_ranks_depend_on(
    path: Path, part: str, driving_scenes: Path
):
    config = read_config(path, {"data_root": str(driving_scenes / part)})
    model = MODELS.build(config.model).train()
    batch = next(iter(NamingRunner.build_dataloader(config.train_dataloader, seed=0)))
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    model.parse_losses(losses)[0].backward()
    weights = dict(model.named_parameters())
    assert [name for name, weight in weights.items() if weight.grad is None] == []


@pytest.mark.usefixtures("signals_and_warnings_as_before")
@pytest.mark.parametrize(
    ("script", "arguments", "line"),
    [
        ("train", ["absent.py"], "expected a config file, got none at absent.py"),
        ("train", [str(DETECTOR)], "expected a config of autonomous_driving.*in detection/ take"),
        ("train", [str(OCCUPANCY)], "expected a file at train_dataloader.dataset.ann_file = data/"),
        (
            "train",
            [str(VECTOR_MAP), "--auto-scale-lr"],
            "expected auto_scale_lr.base_batch_size in .* for --auto-scale-lr, got none",
        ),
        (
            "train",
            [str(OCCUPANCY), "--cfg-options", "model.view.grids.shape=1"],
            "expected keys of the config in --cfg-options, got model.view.grids.shape",
        ),
        ("test", [str(OCCUPANCY)], "expected one CHECKPOINT behind CONFIG, got none"),
        ("test", [str(OCCUPANCY), "a.pth", "--show"], "expected --show-dir DIR for frames"),
        ("test", [str(OCCUPANCY), "absent.pth"], "got absent.pth"),
        (
            "test",
            [str(OCCUPANCY), "a.pth", "--tta"],
            "expected tta_model in .* for --tta, got none",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    script: str, arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code = run_here({"train": train, "test": test}[script], *arguments, folder=tmp_path)
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert said.startswith(f"{script}.py: error: ")
    assert re.search(line, said), said
    assert list(tmp_path.iterdir()) == []
