"""The scripts, which are detection's, with configs of driving."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from internimage.integrations.openmmlab.driving.data.pickles import read_pickle
from internimage.integrations.openmmlab.driving.metrics.dump import DumpDrivingResults
from internimage.integrations.openmmlab.scripts.arguments import parse_test
from internimage.integrations.openmmlab.scripts.checkpoint_kinds import kind_of
from internimage.integrations.openmmlab.scripts.checkpoints import weights_of
from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
from internimage.integrations.openmmlab.scripts.config_parts import task_of
from internimage.integrations.openmmlab.scripts.data_checks import TRAIN, check_data
from internimage.integrations.openmmlab.scripts.model_building import build_model, naming_part
from internimage.integrations.openmmlab.scripts.records import to_scores
from internimage.integrations.openmmlab.scripts.runner import NamingPipeline
from internimage.integrations.openmmlab.scripts.test_settings import apply_arguments
from tests.config_facts import ROOT

CONFIGS = ROOT / "autonomous_driving" / "configs"
OCCUPANCY = CONFIGS / "occupancy_prediction" / "bevformer_intern_occ_tiny.py"
LANES = CONFIGS / "openlane-v2" / "internimage_tiny.py"
VECTOR_MAP = CONFIGS / "Online-HD-Map-Construction" / "vectormapnet_intern_tiny.py"
TINY = (OCCUPANCY, LANES, VECTOR_MAP)
DETECTOR = ROOT / "detection/configs/digit_scenes/mask_rcnn_internimage_n_fpn.py"


def config_with(*flags: str, path: Path = OCCUPANCY) -> Config:
    """The config of a test with these flags."""
    config = read_config(path)
    apply_arguments(config, parse_test("test.py", [str(path), "weights.pth", *flags]))
    return config


def test_a_config_of_driving_is_refused_by_detections_scripts_and_the_other_way_round():
    driving, detector = read_config(OCCUPANCY), read_config(DETECTOR)
    assert driving.default_scope == detector.default_scope  # so that it is no mark
    assert (task_of(driving), task_of(detector)) == ("autonomous_driving", "detection")
    check_task(driving, CONFIGS)
    with pytest.raises(ValueError, match="config of detection.*scripts in autonomous_driving/"):
        check_task(driving, ROOT / "detection" / "configs")
    with pytest.raises(ValueError, match="config of autonomous_driving.*scripts in detection/"):
        check_task(detector, CONFIGS)


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_one_key_moves_all_data_sets(path: Path):
    config = read_config(path, {"data_root": "elsewhere"})
    loaders = (config.train_dataloader, config.val_dataloader, config.test_dataloader)
    assert [loader.dataset.data_root for loader in loaders] == ["elsewhere"] * 3
    with pytest.raises(ValueError, match="expected a file at train_.*= elsewhere/.*data_root"):
        check_data(config, TRAIN)


@pytest.mark.parametrize("key", ["classes", "palette", "train_img_prefix"])
def test_keys_that_frames_of_cameras_have_no_use_for_are_refused(key: str):
    with pytest.raises(ValueError, match=f"data_root, train_ann_file, val_ann_file .*got {key}:"):
        read_config(OCCUPANCY, {key: ("a", "b")})


@pytest.mark.slow
@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_a_servers_files_are_written_instead_of_scores(path: Path):
    metric = config_with("--format-only", "--work-dir", "w", path=path).test_evaluator[0]
    assert metric["format_only"] is True
    assert metric["output_dir"] == str(Path("w", "results"))


def test_pictures_are_drawn_of_all_frames_into_a_folder(tmp_path: Path):
    flags = ("--show-dir", str(tmp_path), "--show-score-thr", "0.7")
    hooks = config_with(*flags).custom_hooks
    (hook,) = [hook for hook in hooks if hook["type"] == "DrivingPicturesHook"]
    assert (hook["out_dir"], hook["num_frames"]) == (str(tmp_path), None)
    assert hook["score_threshold"] == 0.7


def test_there_is_no_window_for_frames_of_several_cameras():
    with pytest.raises(ValueError, match="expected --show-dir DIR"):
        config_with("--show")


def test_there_is_nothing_to_augment():
    with pytest.raises(ValueError, match="nothing to augment in frames of several cameras"):
        config_with("--tta")


def test_what_has_no_effect_is_said_once():
    with pytest.warns(UserWarning, match="--opacity has no effect") as said:
        config_with("--opacity", "0.3")
    assert len([one for one in said if "--opacity" in str(one.message)]) == 1


def test_predictions_are_whole_or_absent(tmp_path: Path, monkeypatch):
    path = tmp_path / "kept" / "a.pkl"
    metric = DumpDrivingResults(out_file_path=str(path))
    metric.process(None, [{"token": "a", "gt_lanes": 1, "pred_lanes": 2}])
    metric.evaluate(1)
    assert read_pickle(path) == [{"token": "a", "pred_lanes": 2}]
    before = path.read_bytes()

    def full(content, file, protocol):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pickle, "dump", full)
    metric.process(None, [{"token": "a", "pred_lanes": 3}])
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        metric.evaluate(1)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_predictions_are_kept_as_they_are(tmp_path: Path):
    path = str(tmp_path / "a.pkl")
    assert config_with("--out", path).test_evaluator[-1] == {
        "type": "DumpDrivingResults",
        "out_file_path": path,
    }


def test_a_measure_cannot_be_chosen():
    with pytest.raises(ValueError, match="expected --eval nothing for OccupancyMetric, got bbox"):
        config_with("--eval", "bbox")


def test_percents_of_occupancy_are_shares_in_the_records():
    scores = to_scores({"occ/mIoU": 25.11, "occ/IoU_car": 41.23, "F": 0.5})
    assert scores == {"mIoU": 0.2511, "IoU_car": 0.4123, "F": 0.5}


def test_weights_keep_names_that_are_old_ones_of_detectors():
    key = "view.encoder.layers.0.attentions.0.value_proj.weight"
    weights = weights_of({"state_dict": {f"module.{key}": torch.zeros(1)}}, "made")
    assert list(weights) == [key]
    assert kind_of(weights) == "a model of driving"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("neck.num_outs", 3, r"FPN of the model can be built with, got AssertionError in fpn\.py"),
        ("neck.num_outs", "two", r"that FPN of the model .* got TypeError in .*: '>='"),
        ("backbone.channels", "x", "InternImage: expected channels = a whole number, got 'x'"),
        ("view.num_pillars", 3, r"BEVFormerView.__init__\(\) got an unexpected keyword"),
        ("view.num_layers", "two", "BEVFormerView: expected num_layers to be a whole number"),
    ],
)
def test_a_setting_of_the_wrong_kind_names_the_part_of_the_model(option, value, message):
    config = Config({"model": read_config(OCCUPANCY).model})
    config.merge_from_dict({f"model.{option}": value})
    with pytest.raises(ValueError, match=message):
        build_model(config.model)


def test_an_error_that_is_not_about_a_part_is_left_alone():
    with pytest.raises(TypeError, match="of the program"), naming_part():
        raise TypeError("a fault of the program")


def test_an_error_about_a_frame_names_it(tmp_path: Path):
    def fail(frame: dict) -> None:
        raise ValueError("too dark")

    frame = {"img_paths": [str(tmp_path / "a.png")], "token": "frame-7"}
    with pytest.raises(ValueError, match="got frame-7: too dark"):
        NamingPipeline(fail)(frame)


def test_an_image_of_a_camera_that_is_cut_short_is_named(tmp_path: Path):
    path = tmp_path / "front.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 and no more")
    with pytest.raises(ValueError, match=r"expected a whole image, got .*front\.jpg"):
        NamingPipeline(lambda frame: frame)({"img_paths": [str(path)], "token": "t"})
