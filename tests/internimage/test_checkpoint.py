"""Weights survive every layout in which they were ever released."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import internimage
from internimage.checkpoint import load_weights
from internimage.checkpoint_layouts import drop_center_points, to_model_keys
from internimage.imagenet22k import TEDDY_BEAR, TEDDY_BEAR_ROW, imagenet_1k_rows

SIZE = "internimage_test_s"  # has layer scale, so that Hugging Face's names differ
CLASSES = 7


@pytest.fixture(scope="module")
def weights(filled_model):
    return filled_model(SIZE).state_dict()


def fresh(**arguments) -> internimage.InternImage:
    if not arguments.get("features_only"):
        arguments = {"num_classes": CLASSES} | arguments
    return internimage.create_model(SIZE, **arguments)


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


def hugging_face(state: dict) -> dict:
    return prefixed({k.replace(".gamma", ".layer_scale"): v for k, v in state.items()}, "model.")


# Layout -> what the file holds.
LAYOUTS = {
    "raw": lambda w: dict(w),
    "model": lambda w: {"model": w, "epoch": 3, "max_accuracy": 83.5},
    "module": lambda w: {"module": w, "ds_version": "0.8"},
    "data parallel": lambda w: {"model": prefixed(w, "module.")},
    "compiled": lambda w: prefixed(w, "_orig_mod."),
    "compiled data parallel": lambda w: prefixed(w, "module._orig_mod."),
    "hugging face": hugging_face,
    "segmentor": lambda w: {
        "meta": {"CLASSES": ("a", "b")},
        "state_dict": prefixed(w, "backbone.") | {"decode_head.conv.weight": torch.zeros(2)},
    },
    "data-parallel segmentor": lambda w: {
        "state_dict": prefixed(w, "module.backbone.") | {"module.decode_head.w": torch.zeros(2)}
    },
    "driving": lambda w: {"state_dict": prefixed(w, "img_backbone.")},
    "student": lambda w: {
        "model": prefixed(w, "student.")
        | prefixed({k: v + 1 for k, v in w.items()}, "teacher.")
        | {"student_proj.weight": torch.zeros(2)}
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strict", [True, False])
def test_every_layout_loads_without_a_difference(layout, strict, weights, tmp_path, recwarn):
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](weights), path)
    model = fresh()
    report = internimage.load_checkpoint(model, path, strict)
    assert report.complete
    assert len(report.loaded) == len(weights)
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_joint_pretraining_dumps_are_taken_apart(fill):
    weights = fill(internimage.create_model("internimage_test_h", num_classes=5)).state_dict()
    renames = {
        "fc_norm.0.weight": "clip.classifier_ln.weight",
        "fc_norm.0.bias": "clip.classifier_ln.bias",
        "head.weight": "clip.classifier.weight",
        "head.bias": "clip.classifier.bias",
    }
    dump = {"mask_token": torch.zeros(1), "clip.text.weight": torch.zeros(1)}
    for key, value in weights.items():
        kept = key.startswith(("dcnv3_head", "clip_projector"))
        dump[renames.get(key, key if kept else f"dcnv3.{key}")] = value
    dump["mm_dcnv3.patch_embed.conv1.weight"] = torch.zeros(1)
    model = internimage.create_model("internimage_test_h", num_classes=5)
    assert load_weights(model, dump).complete
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)


def test_the_moving_average_is_taken_only_on_request(weights, tmp_path):
    path = tmp_path / "training.pth"
    average = {key: value * 2 for key, value in weights.items()}
    torch.save({"model": weights, "model_ema": average}, path)
    plain = internimage.read_checkpoint(path).state_dict
    torch.testing.assert_close(plain["head.bias"], weights["head.bias"])
    ema = internimage.read_checkpoint(path, use_ema=True).state_dict
    torch.testing.assert_close(ema["head.bias"], weights["head.bias"] * 2)
    torch.save({"model": weights}, path)
    with pytest.raises(ValueError, match="expected model_ema .* got model"):
        internimage.read_checkpoint(path, use_ema=True)
    torch.save({"model_ema": weights}, path)
    with pytest.raises(ValueError, match="pass use_ema=True"):
        internimage.read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_saving_and_loading_keeps_weights_and_metadata(suffix, filled_model, tmp_path):
    path = tmp_path / "deep" / f"model{suffix}"
    metadata = internimage.CheckpointMetadata(
        model_name=SIZE,
        num_classes=CLASSES,
        class_names=tuple("abcdefä"),
        preprocessing=internimage.Preprocessing(image_size=32, mean=(0.5, 0.5, 0.5)),
        overrides={"drop_path_rate": 0.25},
    )
    internimage.save_checkpoint(filled_model(SIZE), path, metadata=metadata)
    saved = internimage.read_checkpoint(path)
    assert saved.metadata == metadata
    torch.testing.assert_close(
        saved.state_dict, dict(filled_model(SIZE).state_dict()), rtol=0, atol=0
    )
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_safetensors_are_told_from_pickles_at_any_length_of_their_header(suffix, weights, tmp_path):
    whole = tmp_path / "model.safetensors"
    lengths = set()
    for name_length in range(0, 264, 8):  # the header's length grows by 8, its low byte with it
        metadata = internimage.CheckpointMetadata(
            model_name=SIZE, num_classes=1, class_names=("x" * (name_length + 1),)
        )
        internimage.save_checkpoint({"head.bias": weights["head.bias"]}, whole, metadata=metadata)
        lengths.add(whole.read_bytes()[0])
        path = whole.rename(tmp_path / f"{name_length}.{suffix}")
        assert internimage.read_checkpoint(path).metadata == metadata
    assert 0x80 in lengths


def test_a_state_that_is_no_tensor_stands_in_nobodys_way(weights):
    class Counter(nn.Module):
        def get_extra_state(self) -> dict:
            return {"seen": 3}

        def set_extra_state(self, state: dict) -> None:
            raise AssertionError(state)

    model = fresh()
    model.add_module("counter", Counter())
    report = load_weights(model, weights)
    assert report.complete


def test_wrapped_models_save_and_load_as_bare_ones(filled_model, tmp_path):
    path = tmp_path / "model.safetensors"
    wrapped = nn.DataParallel(filled_model(SIZE))
    internimage.save_checkpoint(wrapped, path)
    assert internimage.load_checkpoint(nn.DataParallel(fresh()), path).complete


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = fresh(features_only=True)
        self.neck = nn.Linear(3, 2)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, torch.compile])
def test_a_model_around_a_backbone_is_saved_and_loaded_whole(wrap, suffix, tmp_path):
    path = tmp_path / f"detector{suffix}"
    source, target = Detector(), Detector()
    internimage.save_checkpoint(wrap(source), path)
    report = internimage.load_checkpoint(wrap(target), path)
    assert report.complete
    assert set(report.loaded) == set(source.state_dict())
    torch.testing.assert_close(dict(target.state_dict()), dict(source.state_dict()), rtol=0, atol=0)
    # The backbone alone is found in it as well.
    assert internimage.load_checkpoint(fresh(features_only=True), path).complete


def test_a_part_called_like_a_wrapper_is_none_beside_other_parts(tmp_path):
    path = tmp_path / "model.safetensors"
    source = nn.ModuleDict({"module": nn.Linear(2, 2), "neck": nn.Linear(2, 2)})
    internimage.save_checkpoint(source, path)
    assert set(internimage.read_checkpoint(path).state_dict) == set(source.state_dict())
    assert internimage.load_checkpoint(source, path).complete


@pytest.mark.parametrize(
    ("key", "twin"),
    [
        ("module.head.bias", "head.bias"),
        ("module.levels.0.blocks.0.layer_scale1", "module.levels.0.blocks.0.gamma1"),
    ],
)
def test_two_tensors_of_one_name_are_refused(key, twin, weights):
    state = prefixed(weights, "module.") | {key: torch.zeros(7), twin: torch.ones(7)}
    with pytest.raises(ValueError, match="load_checkpoint: expected one tensor for .* got .* and"):
        load_weights(fresh(), state)


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, weights):
    path = tmp_path / "model.pth"
    internimage.save_checkpoint(weights, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="save_checkpoint: expected .* got 'lr' with float"):
        internimage.save_checkpoint({"weight": torch.zeros(1), "lr": 0.1}, path)
    with pytest.raises(NotImplementedError, match="meta"):
        internimage.save_checkpoint({"weight": torch.zeros(1, device="meta")}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Saves a megabyte where 100 kB are allowed; the limit stands for a full disk.
SAVE_BEYOND_THE_LIMIT = """
import resource, signal, sys, torch, internimage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    internimage.save_checkpoint({"weight": torch.zeros(250_000)}, sys.argv[1])
except OSError as error:
    print("OSError:", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_full_disk_is_an_os_error_and_leaves_the_old_file_alone(suffix, weights, tmp_path):
    path = tmp_path / f"model.{suffix}"
    internimage.save_checkpoint({"weight": torch.ones(3)}, path)
    done = subprocess.run(
        [sys.executable, "-c", SAVE_BEYOND_THE_LIMIT, path], capture_output=True, text=True
    )
    assert done.stdout.startswith("OSError:"), done.stderr
    assert "File too large" in done.stdout
    assert internimage.read_checkpoint(path).state_dict["weight"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_another_suffix_is_refused(weights, tmp_path):
    with pytest.raises(ValueError, match=r"save_checkpoint: expected \*.safetensors or \*.pth"):
        internimage.save_checkpoint(weights, tmp_path / "model.onnx")


def test_differences_are_listed_by_kind(weights):
    changed = dict(weights)
    del changed["head.weight"]
    changed["neck.weight"] = torch.zeros(1)
    changed["head.bias"] = torch.zeros(9)
    with pytest.raises(ValueError) as caught:
        load_weights(fresh(), changed)
    message = str(caught.value)
    assert "1 missing: head.weight" in message
    assert "1 unexpected: neck.weight" in message
    assert "1 wrong-shaped: head.bias (9,) for (7,)" in message
    with pytest.warns(UserWarning, match="1 missing: head.weight; 1 unexpected"):
        report = load_weights(fresh(), changed, strict=False)
    assert report.missing == ("head.weight",)
    assert report.mismatched == (("head.bias", (9,), (7,)),)
    assert len(report.loaded) == len(weights) - 2


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_that_fits_nowhere_is_never_loaded_silently(strict):
    with pytest.raises(ValueError, match="expected .* key.* of the model, got .* missing"):
        load_weights(fresh(), {"encoder.weight": torch.zeros(3)}, strict)


def test_a_refused_load_leaves_the_model_alone(weights):
    model = fresh()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="wrong-shaped"):
        load_weights(model, dict(weights) | {"head.bias": torch.zeros(1)})
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_a_22k_head_becomes_a_1k_head_and_the_teddy_bear_a_teapot(fill):
    source = fill(fresh(num_classes=21841)).state_dict()
    model = fresh(num_classes=1000)
    report = load_weights(model, source)
    assert report.adaptations == ("1,000 of 21,841 classes selected",)
    rows = imagenet_1k_rows()
    torch.testing.assert_close(model.head.weight, source["head.weight"][rows], rtol=0, atol=0)
    torch.testing.assert_close(model.head.bias, source["head.bias"][rows], rtol=0, atol=0)
    torch.testing.assert_close(model.head.weight[TEDDY_BEAR], source["head.weight"][TEDDY_BEAR_ROW])
    with pytest.raises(ValueError, match="wrong-shaped: head.weight"):
        load_weights(fresh(num_classes=999), source)


def test_the_1k_rows_are_those_that_the_class_lists_give():
    imagenet_info = pytest.importorskip("timm.data").ImageNetInfo
    of_22k = {name: i for i, name in enumerate(imagenet_info("imagenet22k").label_names())}
    names = imagenet_info("imagenet1k").label_names()
    without_row = [i for i, name in enumerate(names) if name not in of_22k]
    assert without_row == [TEDDY_BEAR]
    assert names[TEDDY_BEAR] == "n04399382"
    assert of_22k["n04398044"] == TEDDY_BEAR_ROW
    assert imagenet_1k_rows() == [of_22k.get(name, TEDDY_BEAR_ROW) for name in names]


def test_a_head_can_be_left_as_it_is(weights):
    model = fresh(num_classes=3)
    head = model.head.weight.clone()
    assert load_weights(model, weights, reset_head=True).complete
    torch.testing.assert_close(model.head.weight, head, rtol=0, atol=0)
    torch.testing.assert_close(model.conv_head[0].weight, weights["conv_head.0.weight"])


def test_a_backbone_leaves_the_head_of_a_checkpoint_alone(weights):
    model = fresh(features_only=True)
    assert load_weights(model, weights).adaptations == ("head left out",)
    torch.testing.assert_close(
        model.levels[3].blocks[0].gamma1, weights["levels.3.blocks.0.gamma1"]
    )


def test_a_model_without_a_last_layer_leaves_that_of_a_checkpoint_alone(weights, tmp_path):
    model = fresh(num_classes=0)
    assert load_weights(model, weights).adaptations == ("head left out",)
    torch.testing.assert_close(model.conv_head[0].weight, weights["conv_head.0.weight"])


def test_a_file_comes_before_a_release_and_a_release_before_a_folder(
    weights, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name = "internimage_t_1k_224"
    internimage.save_checkpoint(weights, tmp_path / "downloaded.pth")
    downloads = []

    def download(name: str) -> Path:
        downloads.append(name)
        return tmp_path / "downloaded.pth"

    monkeypatch.setattr("internimage.checkpoint.download", download)
    (tmp_path / name).mkdir()
    assert internimage.load_checkpoint(fresh(), name).complete
    assert downloads == [name]
    (tmp_path / name).rmdir()
    (tmp_path / "downloaded.pth").rename(tmp_path / name)
    assert internimage.load_checkpoint(fresh(), name).complete
    assert downloads == [name]
    with pytest.raises(FileNotFoundError, match="expected an existing file, got "):
        internimage.load_checkpoint(fresh(), tmp_path)


def test_middle_points_are_removed_by_their_place_in_the_kernel(fill):
    source = fill(internimage.create_model(SIZE, num_classes=CLASSES)).state_dict()
    model = fresh(remove_center=True)
    assert load_weights(model, source).adaptations == ("middle sampling points removed",)
    for leaf in ("weight", "bias"):
        mask = source[f"levels.1.blocks.0.dcn.mask.{leaf}"]
        offset = source[f"levels.1.blocks.0.dcn.offset.{leaf}"]
        kept_masks = [i for i in range(len(mask)) if i % 9 != 4]
        kept_offsets = [i for i in range(len(offset)) if i % 18 not in (8, 9)]
        ours = model.state_dict()
        torch.testing.assert_close(ours[f"levels.1.blocks.0.dcn.mask.{leaf}"], mask[kept_masks])
        torch.testing.assert_close(
            ours[f"levels.1.blocks.0.dcn.offset.{leaf}"], offset[kept_offsets]
        )
    assert drop_center_points({"head.bias": mask})["head.bias"] is mask


def test_unknown_keys_pass_through_unchanged():
    state = {"encoder.weight": torch.zeros(1)}
    assert to_model_keys(state) == state
