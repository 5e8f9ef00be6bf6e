"""Evaluation by the script: at one scale, at several, by windows; what its flags leave."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import mmengine
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from internimage.integrations.openmmlab.scripts import test as test_script
from internimage.integrations.openmmlab.scripts.arguments import parse_test
from internimage.integrations.openmmlab.scripts.checkpoints import load_all_weights
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import transforms
from internimage.integrations.openmmlab.scripts.ranks import replace_sync_batch_norm
from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from internimage.integrations.openmmlab.scripts.test_settings import (
    apply_arguments,
    leave_out_scores,
)
from tests.script_runs import Done, run_here
from tests.segmentation.tiny_segmentation_sets import (
    CLASSES,
    CONFIGS,
    HEIGHT,
    PALETTE,
    WIDTH,
    write_config,
)

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CHECKPOINT = "run/iter_24.pth"
SLIDE = ("model.test_cfg.mode=slide", "model.test_cfg.crop_size=(32,32)")
main = functools.partial(test_script.main, "test.py", CONFIGS)

Scores = Callable[[np.ndarray], Tensor]


@pytest.fixture(scope="module")
def model(trained: tuple[Path, Done]) -> nn.Module:
    """The trained segmentor, built without the script."""
    folder = trained[0].parent
    config = read_config(folder / "tiny.py")
    replace_sync_batch_norm(config)
    init_default_scope("mmseg")
    model = MODELS.build(config.model).eval()
    load_all_weights(model, read_checkpoint(folder / CHECKPOINT), CHECKPOINT)
    return model


def image_at(folder: Path, index: int) -> np.ndarray:
    return cv2.imread(str(folder / f"data/images/val/{index:03}.png"))


def masks(folder: Path) -> list[np.ndarray]:
    paths = sorted((folder / "data/masks/val").iterdir())
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]


def scores_of(model: nn.Module, image: np.ndarray) -> Tensor:
    """Scores (C, H, W) of an image (H, W, 3) of bytes, blue first, of its own size."""
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float()
    pixels = (rgb - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        maps = model.decode_head(model.backbone(pixels[None]))
    return F.interpolate(maps, image.shape[:2], mode="bilinear", align_corners=False)[0]


def at_several_scales(model: nn.Module, image: np.ndarray) -> Tensor:
    """The mean of the probabilities at two scales, as it is and mirrored."""
    total = torch.zeros(len(CLASSES), HEIGHT, WIDTH)
    for width, height in ((64, 48), (96, 72)):
        scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        for is_mirrored in (False, True):
            scores = scores_of(model, scaled[:, ::-1] if is_mirrored else scaled)
            scores = scores.flip(2) if is_mirrored else scores
            scores = F.interpolate(scores[None], (HEIGHT, WIDTH), mode="bilinear")[0]
            total += scores.softmax(0)
    return total / 4


def by_windows(model: nn.Module, image: np.ndarray) -> Tensor:
    """The mean of the scores of windows of 32 pixels, 20 pixels apart; the last ones end inside."""
    total = torch.zeros(len(CLASSES), HEIGHT, WIDTH)
    count = torch.zeros(HEIGHT, WIDTH)
    for top in (0, 16):
        for left in (0, 20, 32):
            window = np.s_[top : top + 32, left : left + 32]
            total[:, window[0], window[1]] += scores_of(model, image[window])
            count[window] += 1
    return total / count


WAYS = {
    "one scale": (scores_of, []),
    "several scales": (at_several_scales, ["--tta"]),
    "windows": (by_windows, ["--cfg-options", *SLIDE, "model.test_cfg.stride=(20,20)"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_label_maps_and_scores_are_those_of_the_checkpoint(
    way: str, trained: tuple[Path, Done], model: nn.Module, tmp_path: Path
):
    folder = trained[0].parent
    scores_of_way, arguments = WAYS[way]
    code = run_here(
        main,
        *("tiny.py", CHECKPOINT, "--work-dir", str(tmp_path), "--out", str(tmp_path / "all.pkl")),
        *arguments,
        folder=folder,
    )
    assert code == 0
    dumped = mmengine.load(tmp_path / "all.pkl")
    assert [Path(found["img_path"]).name for found in dumped] == ["000.png", "001.png", "002.png"]
    for index, found in enumerate(dumped):
        expected = scores_of_way(model, image_at(folder, index))
        best, second = expected.topk(2, dim=0).values
        is_clear = (best - second > 1e-4).numpy()
        assert found["labels"].dtype == np.uint8
        assert found["labels"].shape == (HEIGHT, WIDTH)
        assert is_clear.mean() > 0.99
        assert (found["labels"] == expected.argmax(0).numpy())[is_clear].all()
    labels = np.stack([found["labels"] for found in dumped])
    assert len(np.unique(labels)) > 1
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics.pop("checkpoint") == CHECKPOINT
    truth = np.stack(masks(folder))
    shared = [((labels == i) & (truth == i)).sum() for i in range(len(CLASSES))]
    either = [((labels == i) | (truth == i)).sum() for i in range(len(CLASSES))]
    of_truth = [(truth == i).sum() for i in range(len(CLASSES))]
    assert metrics == pytest.approx(
        {
            "mIoU": np.mean(np.divide(shared, either)),
            "mAcc": np.mean(np.divide(shared, of_truth)),
            "aAcc": (labels == truth).mean(),
        },
        abs=6e-5,  # mmseg rounds percent to two digits
    )


@pytest.mark.slow
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_pictures_are_the_images_under_the_colours_of_their_classes(
    trained: tuple[Path, Done], model: nn.Module, tmp_path: Path, capsys
):
    folder = trained[0].parent
    code = run_here(
        main,
        *("tiny.py", CHECKPOINT, "--work-dir", str(tmp_path / "tested"), "--fuse-conv-bn"),
        *("--show-dir", str(tmp_path / "drawn"), "--opacity", "0.7"),
        *("--aug-test", "--show-score-thr", "0.4"),
        folder=folder,
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "--aug-test is an old spelling; from now on: --tta" in said.err
    assert "--show-score-thr has no effect: it is about boxes" in said.err
    assert "batch norms are merged into convolutions" in said.out
    pictures = sorted((tmp_path / "drawn").rglob("*.*"))
    assert [path.name for path in pictures] == ["000.png", "001.png", "002.png"]
    for index, path in enumerate(pictures):
        image = image_at(folder, index)
        scores = at_several_scales(model, image)
        best, second = scores.topk(2, dim=0).values
        is_clear = (best - second > 1e-3).numpy()  # merged norms round otherwise
        colours = np.array(PALETTE)[:, ::-1][scores.argmax(0).numpy()]
        difference = np.abs(cv2.imread(str(path)) - (0.3 * image + 0.7 * colours))
        assert difference[is_clear].max() <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("signals_and_warnings_as_before")
@pytest.mark.parametrize("more", [[], ["--tta"]])
def test_files_for_a_server_need_no_masks(trained: tuple[Path, Done], more, tmp_path: Path):
    code = run_here(
        main,
        *("tiny.py", CHECKPOINT, "--format-only", "--work-dir", str(tmp_path), *more),
        *("--out", str(tmp_path / "all.pkl"), "--cfg-options", "val_seg_map_prefix=nowhere"),
        folder=trained[0].parent,
    )
    assert code == 0
    dumped = mmengine.load(tmp_path / "all.pkl")
    files = sorted((tmp_path / "results").iterdir())
    assert [path.name for path in files] == ["000.png", "001.png", "002.png"]
    for found, path in zip(dumped, files, strict=True):
        assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == found["labels"]).all()
    assert not (tmp_path / "metrics.json").exists()


WRONG = {
    "no checkpoint": ([], "one CHECKPOINT behind CONFIG, got none"),
    "none there": (["no.pth"], "an existing checkpoint, got no.pth"),
    "measure": (["a.pth", "--eval", "bbox"], "--eval mDice or mFscore or mIoU for IoUMetric"),
    "option": (["a.pth", "--eval-options", "efficient_test=1"], "--eval-options of IoUMetric"),
    "opacity": (["a.pth", "--opacity", "1.5", "--show-dir", "x"], "from 0 to 1, got 1.5"),
    "dump": (["a.pth", "--out", "all.json"], "--out *.pkl, got all.json"),
    "augmentation": (
        ["a.pth", "--tta", "--cfg-options", "tta_model=None"],
        "expected tta_model in tiny.py for --tta, got none; the bases of data sets",
    ),
    "windows": (["a.pth", "--cfg-options", *SLIDE], "mode slide with stride = (height, width)"),
    "windows apart": (
        ["a.pth", "--cfg-options", *SLIDE, "model.test_cfg.stride=(33,20)"],
        "stride <= crop_size, so that the windows leave no pixel out",
    ),
    "masks": (["a.pth", "--cfg-options", "val_seg_map_prefix=no"], "data_prefix.seg_map_path = "),
    "images": (["a.pth", "--cfg-options", "img_suffix=.jpg"], "no images"),
    "GPUs": (["a.pth", "--gpu-ids", "0", "1"], "dist_test.sh CONFIG GPUS"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_wrong_input_is_one_line_and_exit_code_2(name: str, tiny_folder: Path, capsys):
    arguments, expected = WRONG[name]
    (tiny_folder / "a.pth").write_bytes(b"")
    assert run_here(main, "tiny.py", *arguments, folder=tiny_folder) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert line.startswith("test.py: error: ")
    assert expected in line


def settle(folder: Path, *arguments: str, more: str = "") -> Config:
    """The tiny config with what the flags of test.py make of it."""
    path = write_config(folder / "settled.py", folder / "data", more)
    args = parse_test("test.py", [str(path), "some.pth", *arguments])
    config = read_config(path)
    apply_arguments(config, args)
    return config


def test_a_config_may_be_augmented_by_itself(tiny_folder: Path):
    config = settle(tiny_folder, more="tta = True\n")
    assert config.model["type"] == "InternImageSegTTA"
    assert config.model["module"]["type"] == "InternImageSegmentor"
    steps = transforms(config.test_dataloader.dataset.pipeline)
    assert "TestTimeAug" in [step["type"] for step in steps]
    steps = transforms(config.val_dataloader.dataset.pipeline)
    assert "TestTimeAug" not in [step["type"] for step in steps]


@pytest.mark.parametrize(
    ("evaluator", "is_kept"),
    [
        ({"type": "IoUMetric"}, False),
        ([{"type": "IoUMetric"}, {"type": "DumpLabelMaps"}], False),
        ([{"type": "IoUMetric"}, {"type": "SomebodysMetric"}], True),
        (None, True),
    ],
)
def test_scores_are_kept_where_somebody_looks_at_them(
    evaluator, is_kept: bool, model: nn.Module, monkeypatch
):
    before = dict(model.test_cfg)
    monkeypatch.setattr(model, "test_cfg", model.test_cfg)
    leave_out_scores(model, evaluator)
    assert model.test_cfg.get("keep_scores", True) is is_kept
    assert {key: model.test_cfg[key] for key in before} == before


def test_measures_and_options_reach_the_metric(tiny_folder: Path):
    options = ("--eval-options", "nan_to_num=0")
    metric = settle(tiny_folder, "--eval", "mIoU", "mDice", *options).test_evaluator
    assert (metric["iou_metrics"], metric["nan_to_num"]) == (["mIoU", "mDice"], 0)


def test_the_measure_of_cityscapes_has_a_folder_that_it_may_empty(tiny_folder: Path, monkeypatch):
    with pytest.raises(ValueError, match="pip install cityscapesscripts"):
        settle(tiny_folder, "--eval", "cityscapes")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    config = settle(tiny_folder, "--eval", "cityscapes", "mIoU", "--work-dir", "w")
    ours, theirs = config.test_evaluator
    assert (ours["type"], ours["iou_metrics"]) == ("IoUMetric", ["mIoU"])
    assert theirs["type"] == "CityscapesMetricOfClasses"
    assert (theirs["output_dir"], theirs["keep_results"]) == ("w/cityscapes", True)


def test_the_metric_of_cityscapes_keeps_the_files_that_are_asked_for(tiny_folder: Path):
    more = "test_evaluator = dict(_delete_=True, type='mmseg.CityscapesMetric')\n"
    (metric,) = settle(tiny_folder, "--format-only", "--work-dir", "w", more=more).test_evaluator
    assert metric["type"] == "CityscapesMetricOfClasses"
    assert (metric["format_only"], metric["keep_results"]) == (True, True)
    assert metric["output_dir"] == "w/results"
    assert metric["image_dirs"] == [str(tiny_folder / "data/images/val")]


def test_a_type_with_its_library_in_front_is_the_same_metric(tiny_folder: Path):
    more = "test_evaluator = dict(type='mmseg.IoUMetric')\n"
    config = settle(tiny_folder, "--eval", "mDice", more=more)
    assert config.test_evaluator["iou_metrics"] == ["mDice"]
    with pytest.raises(ValueError, match="--eval-options of IoUMetric .* got nan_to_nun"):
        settle(tiny_folder, "--eval-options", "nan_to_nun=0", more=more)


def test_options_go_to_the_metrics_that_have_them(tiny_folder: Path):
    more = "test_evaluator = [dict(type='IoUMetric'), dict(type='CityscapesMetric')]\n"
    config = settle(tiny_folder, "--eval-options", "beta=2", "ignore_index=4", more=more)
    ours, theirs = config.test_evaluator
    assert (ours["beta"], ours["ignore_index"]) == (2, 4)
    assert theirs["ignore_index"] == 4 and "beta" not in theirs
    with pytest.raises(ValueError, match="of IoUMetric and CityscapesMetric .* got keep_result$"):
        settle(tiny_folder, "--eval-options", "keep_result=True", more=more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opacity", "0.4"], "--opacity has no effect without --show or --show-dir"),
        (["--dir-name", "x"], "--dir-name has no effect"),
    ],
)
def test_what_has_no_effect_warns(arguments: list[str], message: str, tiny_folder: Path):
    with pytest.warns(UserWarning, match=message):
        settle(tiny_folder, *arguments)
