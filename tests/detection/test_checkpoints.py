"""Checkpoints against the model: what is loaded, what is refused, and in which words."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file
from torch import Tensor, nn

from internimage.hub import RELEASED
from internimage.integrations.openmmlab.scripts import checkpoints, safe_loading
from internimage.integrations.openmmlab.scripts.checkpoints import (
    CheckpointCheckHook,
    Purpose,
    class_names,
    load_all_weights,
    read_checkpoint,
)
from internimage.integrations.openmmlab.scripts.released_models import (
    RELEASED_DETECTORS,
    RELEASED_MODELS,
)
from internimage.integrations.openmmlab.scripts.safe_loading import (
    find_file,
    register_safe_loading,
)
from tests.detection.script_runs import CONFIGS


class TinyDetector(nn.Module):
    """Names as a detector has them: a backbone with a stem, a neck, layers of classes."""

    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {"patch_embed": nn.ModuleDict({"conv1": nn.Conv2d(3, width, 1)})}
        )
        self.neck = nn.Conv2d(width, 5, 1)
        self.bbox_head = nn.ModuleDict(
            {"fc_cls": nn.Linear(5, num_classes), "norm": nn.BatchNorm2d(5)}
        )
        self.bbox_head.num_classes = num_classes
        self.dn_query_generator = nn.ModuleDict({"label_embedding": nn.Embedding(num_classes, 2)})
        self.query_embedding = nn.Embedding(9, 2)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}


def check(
    purpose: Purpose, checkpoint: dict[str, Any], classes: tuple[str, ...] = ("a", "b", "c")
) -> dict[str, Tensor]:
    """What the hook leaves of a checkpoint for a model of three classes."""
    dataset = SimpleNamespace(metainfo={"classes": classes})
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    runner: Any = SimpleNamespace(model=TinyDetector(), _test_loop=loop, _train_loop=loop)
    CheckpointCheckHook(purpose, "some.pth").after_load_checkpoint(runner, checkpoint)
    return checkpoint["state_dict"]


def run_state(state_dict: dict[str, Tensor]) -> dict[str, Any]:
    meta = {"epoch": 1, "iter": 2}
    return {"state_dict": state_dict, "meta": meta, "optimizer": {}, "message_hub": {}}


@pytest.mark.parametrize("purpose", ["test", "resume", "load_from"])
def test_a_checkpoint_of_the_model_is_loaded_whole(purpose: Purpose):
    expected = weights(TinyDetector())
    assert check(purpose, run_state(expected)) == expected


def test_wrappers_and_old_averages_come_off():
    expected = weights(TinyDetector())
    old = {f"module.{key}": value for key, value in expected.items()}
    old |= {f"module.ema_{key.replace('.', '_')}": value for key, value in expected.items()}
    assert set(check("test", {"state_dict": old})) == set(expected)


def test_a_start_may_have_other_classes_and_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(checkpoints, "print_log", lambda text, _: said.append(text))
    other = weights(TinyDetector(num_classes=80))
    loaded = check("load_from", {"state_dict": other})
    assert len(said) == 1
    assert said[0].startswith("10 of 13 tensors from some.pth; 3 wrong-shaped: bbox_head")
    own = TinyDetector().state_dict()
    for key in ("bbox_head.fc_cls.weight", "dn_query_generator.label_embedding.weight"):
        assert loaded[key].shape == own[key].shape
    assert torch.equal(loaded["neck.weight"], other["neck.weight"])


STATE = weights(TinyDetector())
BACKBONE = {key: value for key, value in STATE.items() if key.startswith("backbone.")}
BARE = {key.removeprefix("backbone."): value for key, value in BACKBONE.items()}
HEAD = {"bbox_head.fc_cls.weight": torch.zeros(80, 5), "bbox_head.fc_cls.bias": torch.zeros(80)}

WRONG = {
    "a classifier": ({**BARE, "head.weight": torch.zeros(2, 2)}, "got a classifier in some.pth"),
    "a bare backbone": (BARE, "got a backbone in some.pth: its names lack the prefix backbone."),
    "a backbone": (BACKBONE, "of which only the backbone fits"),
    "nothing": ({"x": torch.zeros(1)}, "of which nothing fits"),
    "another prefix": ({f"model.x.{k}": v for k, v in STATE.items()}, "of which nothing fits"),
    "another size": (weights(TinyDetector(width=8)), "backbone.patch_embed.conv1.weight"),
}


@pytest.mark.parametrize("purpose", ["test", "load_from"])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_checkpoint_of_the_model_is_refused(purpose: Purpose, name: str):
    state_dict, message = WRONG[name]
    with pytest.raises(ValueError, match="expected a checkpoint of") as caught:
        check(purpose, {"state_dict": dict(state_dict)})
    assert message in str(caught.value)


@pytest.mark.parametrize("purpose", ["test", "load_from"])
@pytest.mark.parametrize(
    ("key", "shape"),
    [("query_embedding.weight", (3, 2)), ("neck.bias", (6,)), ("bbox_head.norm.weight", (80,))],
)
def test_other_sizes_than_the_classes_are_no_start_and_not_called_classes(
    purpose: Purpose, key: str, shape: tuple[int, ...]
):
    """With another number of classes beside it, and without."""
    for others in (STATE, weights(TinyDetector(num_classes=80))):
        with pytest.raises(ValueError, match="expected a checkpoint of this model") as caught:
            check(purpose, {"state_dict": {**others, key: torch.zeros(shape)}})
        assert key in str(caught.value)


def test_layers_of_classes_must_agree_on_their_number():
    other = weights(TinyDetector(num_classes=80))
    other["dn_query_generator.label_embedding.weight"] = torch.zeros(20, 2)
    with pytest.raises(ValueError, match="label_embedding"):
        check("load_from", {"state_dict": other})


@pytest.mark.parametrize(
    ("old", "new", "is_classes"),
    [(80, 3, True), (81, 4, True), (320, 12, True), (81, 3, False), (80, 12, False)],
)
def test_layers_of_classes_have_one_of_three_sizes(old: int, new: int, is_classes: bool):
    """Scores of k classes, those with one for no object, boxes of each class."""
    model = TinyDetector()
    model.bbox_head["fc_reg"] = nn.Linear(5, new)
    other = TinyDetector(num_classes=80)
    other.bbox_head["fc_reg"] = nn.Linear(5, old)
    report = checkpoints.compare(model, weights(other))
    found = checkpoints.class_sized(model, report)
    assert ("bbox_head.fc_reg.weight" in found) is is_classes
    assert "bbox_head.fc_cls.weight" in found


def test_a_start_that_lacks_a_part_of_the_head_warns(recwarn):
    part = {key: value for key, value in STATE.items() if not key.startswith("neck.")}
    with pytest.warns(UserWarning, match=r"2 missing: neck.weight, neck.bias; .* at random"):
        check("load_from", {"state_dict": dict(part)})
    with pytest.warns(UserWarning, match="got some.pth with 1 unexpected: mask_head.weight$"):
        check("load_from", {"state_dict": {**STATE, "mask_head.weight": torch.zeros(2)}})
    recwarn.clear()
    check("load_from", {"state_dict": weights(TinyDetector(num_classes=80))})
    assert not recwarn.list  # other classes are what a start is for


@pytest.mark.parametrize("name", ["a classifier", "a bare backbone", "a backbone"])
def test_a_part_of_a_model_has_a_place_in_the_config(name: str):
    with pytest.raises(ValueError, match=r"model.backbone.init_cfg=dict\(type='Pretrained'"):
        check("load_from", {"state_dict": dict(WRONG[name][0])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": torch.zeros(1)}, "1 unexpected: more"),
        (HEAD, r"another number of them \(bbox_head.fc_cls.weight \(80, 5\) for \(3, 5\)\)"),
        ({"neck.weight": torch.zeros(6, 4, 1, 1)}, "neck.weight"),
    ],
)
def test_an_evaluation_wants_every_key_and_shape(change: dict[str, Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        check("test", {"state_dict": {**STATE, **change}})


@pytest.mark.parametrize("purpose", ["test", "resume", "load_from"])
def test_weights_that_are_no_numbers_are_refused(purpose: Purpose):
    bad = {**STATE, "neck.bias": torch.tensor([1.0, 2.0, float("nan"), 3.0, 4.0])}
    with pytest.raises(ValueError, match=r"NaN or infinity in some.pth: neck.bias"):
        check(purpose, run_state(bad))


def test_a_missing_tensor_is_named():
    state_dict = {key: value for key, value in STATE.items() if key != "neck.bias"}
    with pytest.raises(ValueError, match="1 missing: neck.bias"):
        check("test", {"state_dict": state_dict})


def test_counters_of_batch_norms_may_be_missing():
    state_dict = {k: v for k, v in STATE.items() if not k.endswith("num_batches_tracked")}
    assert set(check("test", {"state_dict": state_dict})) == set(state_dict)


def test_weights_alone_are_no_run_to_go_on_with():
    with pytest.raises(ValueError, match="got weights alone in some.pth; --load-from starts"):
        check("resume", {"state_dict": dict(STATE), "meta": {"epoch": 1, "iter": 2}})


def test_classes_in_another_order_are_refused_and_other_names_warn():
    old = {"state_dict": dict(STATE), "meta": {"CLASSES": ("b", "a", "c")}}
    with pytest.raises(ValueError, match="'b' where the data set has 'a'; .* order is not"):
        check("test", copy.copy(old))
    with pytest.warns(UserWarning, match="'b' where the data set has 'a'"):
        check("load_from", copy.copy(old))
    with pytest.warns(UserWarning, match="'b' where the data set has 'x'"):
        check("test", copy.copy(old), classes=("x", "a", "c"))
    with pytest.warns(
        UserWarning, match="the 2 classes of the data set, got some.pth, which names 3"
    ):
        check("test", copy.copy(old), classes=("a", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check("test", copy.copy(old), classes=("b", "a", "c"))
        check("load_from", copy.copy(old), classes=("a", "b"))


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        ({"meta": {"CLASSES": ["a", "b"]}}, ("a", "b")),
        ({"meta": {"dataset_meta": {"classes": ("a",)}}}, ("a",)),
        ({"meta": {"dataset_meta": {"CLASSES": ("a",)}}}, ("a",)),
        ({"meta": {"CLASSES": "person"}}, ("person",)),
        ({"meta": {}}, None),
        ({}, None),
    ],
)
def test_classes_are_read_from_both_generations(checkpoint, expected):
    assert class_names(checkpoint) == expected


def test_all_weights_go_into_a_model(tmp_path: Path):
    model = TinyDetector()
    save_file({f"module.{key}": value for key, value in STATE.items()}, tmp_path / "a.safetensors")
    load_all_weights(model, read_checkpoint(tmp_path / "a.safetensors"), "a.safetensors")
    assert all(torch.equal(value, STATE[key]) for key, value in model.state_dict().items())


def test_a_training_checkpoint_comes_back_with_its_logs_and_numbers(tmp_path: Path):
    hub = MessageHub("written")
    hub.update_scalar("train/loss", 1.5)
    content = {
        "state_dict": STATE,
        "message_hub": hub.state_dict(),
        "meta": {"best": np.float64(0.5), "array": np.arange(3)},
    }
    torch.save(content, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    buffer = read["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == buffer.current() == 1.5
    assert (read["meta"]["best"], read["meta"]["array"].tolist()) == (0.5, [0, 1, 2])


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Getter:
    """Reaches for an attribute of anything when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (np.ndarray, "tofile")


@pytest.mark.parametrize("kind", ["code", "attribute"])
def test_code_in_a_checkpoint_is_never_run_by_mmengine(tmp_path: Path, kind: str):
    hostile = Hostile(tmp_path / "was_here") if kind == "code" else Getter()
    torch.save({"state_dict": STATE, "meta": hostile}, tmp_path / "a.pth")
    register_safe_loading()
    with pytest.raises(ValueError, match="open_checkpoint: expected"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"), map_location="cpu")
    assert not (tmp_path / "was_here").exists()


def test_what_the_runner_loads_outlives_its_file(tmp_path: Path):
    torch.save({"state_dict": STATE, "optimizer": {"state": [torch.ones(5000)]}}, tmp_path / "a")
    register_safe_loading()
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / "a"), map_location="cpu")
    (tmp_path / "a").write_bytes(b"")
    assert loaded["optimizer"]["state"][0].sum() == 5000


def test_places_that_cannot_be_read_safely_are_refused():
    register_safe_loading()
    with pytest.raises(ValueError, match="fetch it first"):
        CheckpointLoader.load_checkpoint("s3://bucket/a.pth")


@pytest.mark.parametrize(
    "source",
    [
        RELEASED_MODELS[0],
        f"{RELEASED_MODELS[0]}.pth",
        f"https://huggingface.co/OpenGVLab/InternImage/resolve/main/{RELEASED_MODELS[0]}.pth",
    ],
)
def test_released_models_are_found_by_name_and_address(source: str, monkeypatch):
    asked = []
    monkeypatch.setattr(
        safe_loading, "download_file", lambda *where: asked.append(where) or Path("x.pth")
    )
    assert find_file(source) == Path("x.pth")
    assert asked == [("OpenGVLab/InternImage", f"{RELEASED_MODELS[0]}.pth")]


def test_a_folder_that_is_called_like_a_released_model_does_not_hide_it(
    tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / RELEASED_MODELS[0]).mkdir()
    monkeypatch.setattr(safe_loading, "download_file", lambda *_: Path("x.pth"))
    assert find_file(RELEASED_MODELS[0]) == Path("x.pth")


def test_released_names_are_those_of_readme_configs_and_docstrings():
    """The tables' files, what ``load_from`` of the configs names, and the commands beside them."""
    readme = (CONFIGS.parent / "README.md").read_text()
    in_tables = set(re.findall(r"\| .*`(\w[\w.]*)\.pth` *\|", readme))
    in_tables |= set(re.findall(r"`(\w[\w.]*)\.pth`,", readme))
    in_tables |= set(re.findall(r"\[((?:mask_rcnn|cascade)_\w+_coco)\]\(configs/coco", readme))
    assert in_tables == set(RELEASED_DETECTORS)
    texts = [path.read_text() for path in CONFIGS.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"(\w[\w.]*)\.pth\b", text)}
    assert len(named) >= 5
    assert named <= set(RELEASED_DETECTORS) | set(RELEASED)


def test_a_file_of_that_name_wins_and_nothing_else_is_guessed(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f"{RELEASED_MODELS[0]}.pth").write_bytes(b"x")
    assert find_file(f"{RELEASED_MODELS[0]}.pth").exists()
    with pytest.raises(FileNotFoundError, match=r"got the folder \S*test_a_file"):
        find_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected an existing checkpoint, got no.pth"):
        find_file("no.pth")
