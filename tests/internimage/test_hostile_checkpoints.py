"""Files that are no checkpoint, or a dangerous one: one clear error, and nothing is run."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import internimage

MODEL = "internimage_test_t"
OFFSET = "levels.0.blocks.0.dcn.offset.bias"


@pytest.fixture(scope="module")
def saved(filled_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for suffix in ("safetensors", "pth"):
        internimage.save_checkpoint(filled_model(MODEL), folder / f"model.{suffix}")
    torch.save(
        filled_model(MODEL).state_dict(),
        folder / "legacy.pth",
        _use_new_zipfile_serialization=False,
    )
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "legacy.pth"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_files_are_refused(name, kept, saved, tmp_path):
    whole = (saved / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=f"expected a whole .*{name}"):
        internimage.read_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "legacy.pth"])
def test_the_format_is_told_by_content_and_not_by_name(name, saved, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes((saved / name).read_bytes())
    assert len(internimage.read_checkpoint(path).state_dict) > 50


# What the file holds, and what the error must say.
NO_CHECKPOINTS = {
    "empty": (b"", "empty file"),
    "text": (b"hello world, this is no checkpoint", "starts with b'hello"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "zeros": (bytes(100), "starts with"),
    "long header": (b"\xff" * 8 + b"{" + b" " * 100, "whole safetensors"),
    "zip": (b"PK\x03\x04" + bytes(100), "truncated or of another format"),
    "short pickle": (b"\x80\x02}", "truncated or of another format"),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_files_that_are_no_checkpoints_are_refused(kind, tmp_path):
    content, message = NO_CHECKPOINTS[kind]
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        internimage.load_checkpoint(internimage.create_model(MODEL), path)


class RunsACommand:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_named_and_not_run(zipped, tmp_path):
    path, trace = tmp_path / "model.pth", tmp_path / "ran"
    content = {"model": {"head.bias": torch.zeros(2)}, "config": RunsACommand(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"pickled object (posix|nt)\.mkdir, which will not be"):
        internimage.read_checkpoint(path)
    assert not trace.exists()


def test_what_openmmlab_has_saved_is_sent_to_those_who_read_it(tmp_path: Path):
    path = tmp_path / "detector.pth"
    # A pickle that names a class of mmengine's; nothing of OpenMMLab is needed to refuse it.
    named = b"cmmengine.logging.history_buffer\nHistoryBuffer\n."
    path.write_bytes(b"\x80\x02" + named)
    with pytest.raises(ValueError, match=r"HistoryBuffer.*; the commands of detection/ and segm"):
        internimage.load_checkpoint(internimage.create_model(MODEL), path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_bare_pickle_of_code_is_refused_without_advice_to_run_it(protocol, tmp_path, recwarn):
    path, trace = tmp_path / "model.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps(RunsACommand(trace), protocol=protocol))
    with pytest.raises(ValueError, match="open_checkpoint: expected") as error:
        internimage.read_checkpoint(path)
    assert not trace.exists()
    assert "weights_only" not in str(error.value)
    assert not list(recwarn)


def test_a_pickled_config_of_a_training_run_does_not_stand_in_the_way(
    filled_model, tmp_path, monkeypatch
):
    yacs = pytest.importorskip("yacs.config")
    config = yacs.CfgNode({"MODEL": {"NAME": "x", "DEPTHS": [4, 4]}, "AMP": True})
    config.freeze()
    path = tmp_path / "ckpt_epoch_3.pth"
    weights = filled_model(MODEL).state_dict()
    torch.save({"model": weights, "config": config, "epoch": 3, "max_accuracy": 1.5}, path)
    # Not even the constructor of the class in the file may run.
    monkeypatch.setattr(yacs.CfgNode, "__init__", lambda *_: pytest.fail("the class was used"))
    monkeypatch.setattr(yacs.CfgNode, "__setitem__", lambda *_: pytest.fail("used"), raising=False)
    saved = internimage.read_checkpoint(path)
    assert set(saved.state_dict) == set(weights)


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1, tags=["a"]),
        Path("a") / "b",
        np.float64(83.5),
        np.arange(3),
        np.dtype("float32"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_harmless_objects_beside_the_weights_are_left_out(beside, tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": {"head.bias": torch.ones(2)}, "beside": beside}, path)
    assert internimage.read_checkpoint(path).state_dict["head.bias"].tolist() == [1, 1]


def test_folders_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got the folder"):
        internimage.read_checkpoint(tmp_path)
    model = internimage.create_model(MODEL)
    with pytest.raises(FileNotFoundError, match="expected an existing file, got .*nothing.pth"):
        internimage.load_checkpoint(model, tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match="nearest: internimage_t_1k_224"):
        internimage.load_checkpoint(model, "internimage_t_1k_22")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, torch.zeros(3)])
def test_files_without_weights_are_refused(content, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match="expected (weights|a mapping)"):
        internimage.read_checkpoint(path)


def test_a_checkpoint_of_another_size_is_refused(saved):
    other = internimage.create_model("internimage_n", num_classes=7)
    with pytest.raises(ValueError, match="missing: .*wrong-shaped: patch_embed.conv1.weight"):
        internimage.load_checkpoint(other, saved / "model.safetensors")


# What the weights hold beside or instead of the whole, and what the error must say.
MALFORMED_WEIGHTS = {
    "head": ({"head.bias": torch.tensor(1.0)}, r"head.bias \(\) for \(7,\)"),
    "offset": ({OFFSET: torch.tensor(1.0)}, r"offset.bias \(\) for"),
    "point": ({OFFSET: torch.zeros(5)}, r"offset.bias \(5,\) for"),
    "no point": ({OFFSET: torch.zeros(0)}, r"offset.bias \(0,\) for"),
    "integers": ({"head.weight": torch.ones(7, 192, dtype=torch.int8)}, "got torch.int8"),
    "sparse": ({"head.weight": torch.ones(7, 192).to_sparse()}, "torch.sparse_coo"),
    "number as name": ({3: torch.zeros(2)}, "expected names with a tensor each, got 3"),
}


@pytest.mark.parametrize("kind", MALFORMED_WEIGHTS)
@pytest.mark.parametrize("remove_center", [False, True])
def test_malformed_weights_are_a_value_error(kind, remove_center, filled_model, tmp_path):
    changed, message = MALFORMED_WEIGHTS[kind]
    path = tmp_path / "model.pth"
    torch.save({"model": filled_model(MODEL).state_dict() | changed}, path)
    model = internimage.create_model(MODEL, num_classes=7, remove_center=remove_center)
    with pytest.raises(ValueError, match=message):
        internimage.load_checkpoint(model, path)


@pytest.mark.parametrize("text", ["", "[]", '{"model_name": "x"}', '{"preprocessing": 3}'])
def test_broken_metadata_is_refused(text):
    with pytest.raises(ValueError, match="CheckpointMetadata.from_json: expected"):
        internimage.CheckpointMetadata.from_json(text)


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_size": 0},
        {"image_size": 2.5},
        {"mean": (0.5, 0.5)},
        {"std": (1.0, 1.0, 0.0)},
        {"std": "abc"},
        {"interpolation": "cubic"},
        {"crop_ratio": 0.0},
        {"crop_ratio": 1.5},
        {"crop_ratio": 1e-9},
        {"image_size": 8193},
        {"std": (1.0, 1.0, float("nan"))},
        {"mean": (10**400, 0.5, 0.5)},
        {"mean": None},
    ],
)
def test_impossible_preprocessing_is_refused(arguments):
    with pytest.raises(ValueError, match="Preprocessing: expected"):
        internimage.Preprocessing(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"model_name": ["a"]},
        {"num_classes": 0},
        {"num_classes": True},
        {"class_names": "abc"},
        {"class_names": (1, 2, 3)},
        {"overrides": ["channels"]},
        {"overrides": {"features_only": True}},
        {"overrides": {"pretrained": True}},
    ],
)
def test_impossible_metadata_is_refused(arguments):
    with pytest.raises(ValueError, match="CheckpointMetadata: expected"):
        internimage.CheckpointMetadata(**({"model_name": "n", "num_classes": 3} | arguments))


def test_metadata_of_a_later_version_is_read_as_far_as_it_is_known():
    metadata = internimage.CheckpointMetadata(model_name=MODEL, num_classes=3)
    fields = json.loads(metadata.to_json())
    fields |= {"licence": "MIT"}
    fields["preprocessing"] |= {"colour_space": "sRGB"}
    assert internimage.CheckpointMetadata.from_json(json.dumps(fields)) == metadata


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_broken_metadata_does_not_stand_in_the_way_of_the_weights(
    suffix, filled_model, tmp_path, monkeypatch
):
    path = tmp_path / f"model.{suffix}"
    metadata = internimage.CheckpointMetadata(model_name=MODEL, num_classes=7)
    with monkeypatch.context() as patch:
        patch.setattr(internimage.CheckpointMetadata, "to_json", lambda _: "{broken")
        internimage.save_checkpoint(filled_model(MODEL), path, metadata=metadata)
    with pytest.raises(ValueError, match="CheckpointMetadata.from_json: expected"):
        internimage.read_checkpoint(path)
    model = internimage.create_model(MODEL, num_classes=7)
    assert internimage.load_checkpoint(model, path).complete


def test_metadata_counts_its_class_names():
    with pytest.raises(ValueError, match="expected 3 class names or none, got 2"):
        internimage.CheckpointMetadata(model_name="n", num_classes=3, class_names=("a", "b"))
