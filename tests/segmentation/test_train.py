"""Training by the script: what a run leaves, what a flag does, what wrong input ends it with."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from internimage.integrations.openmmlab.scripts import train as train_script
from internimage.integrations.openmmlab.scripts.runner import NamingPipeline
from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from tests.script_runs import Done, run_here
from tests.segmentation.tiny_segmentation_sets import (
    CLASSES,
    CONFIGS,
    PALETTE,
    run_script,
    write_config,
    write_images,
)

NUM_STEPS = 24
LOSS = r"Iter\(train\).*  base_lr: \S+ lr: (\S+) .* loss: (\d+\.\d+)"
main = functools.partial(train_script.main, "train.py", CONFIGS)

pytestmark = pytest.mark.usefixtures("signals_and_warnings_as_before")


def errors(capsys) -> str:
    """The one line about a mistake."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert line.startswith("train.py: error: ")
    return line


def test_metrics_are_those_of_the_last_evaluation(trained: tuple[Path, Done]):
    folder, done = trained
    metrics = json.loads((folder / "metrics.json").read_text())
    last = done.printed.rpartition("Iter(val)")[2]
    for name in ("mIoU", "mAcc", "aAcc"):
        (printed,) = re.findall(rf"{name}: (\d+\.\d+)", last)
        assert metrics[name] == pytest.approx(float(printed) / 100, abs=1e-6)
        assert 0 <= metrics[name] <= 1
    assert metrics["iteration"] == NUM_STEPS
    assert "detector" not in done.printed + done.errors


def test_curves_are_drawn_over_the_whole_run(trained: tuple[Path, Done]):
    folder, done = trained
    history = json.loads((folder / "history.json").read_text())
    losses = [float(loss) for _, loss in re.findall(LOSS, done.printed)]
    assert len(losses) == NUM_STEPS
    assert [step for step, _ in history["loss"]] == [10, 20, NUM_STEPS]
    expected = (sum(losses[:10]) / 10, sum(losses[10:20]) / 10, sum(losses[20:]) / 4)
    assert [loss for _, loss in history["loss"]] == pytest.approx(expected, abs=1e-3)
    assert expected[2] < expected[0]
    assert [step for step, _ in history["scores"]] == [12, 24]
    picture = cv2.imread(str(folder / "curves.png"))
    assert picture.shape[1] > picture.shape[0] > 300
    assert len(set(picture.reshape(-1, 3)[::7].sum(axis=1).tolist())) > 20  # not an empty page


def test_checkpoints_say_what_they_were_trained_on(trained: tuple[Path, Done]):
    folder, _ = trained
    names = {path.name for path in folder.glob("*.pth")}
    assert {"iter_12.pth", "iter_24.pth"} < names
    assert any(name.startswith("best_mIoU_iter_") for name in names)
    meta = read_checkpoint(folder / "iter_24.pth")["meta"]["dataset_meta"]
    assert (tuple(meta["classes"]), meta["palette"]) == (CLASSES, PALETTE)
    assert (folder / "last_checkpoint").read_text().endswith("iter_24.pth")
    assert not list(folder.rglob(".*"))  # no half-written file is left


def test_synchronised_norms_are_plain_ones_here(trained: tuple[Path, Done]):
    _, done = trained
    assert re.search(r"\d+ SyncBN of the config are plain BN here", done.printed)


@pytest.mark.slow
def test_half_precision_and_the_rate_for_the_real_batch(trained: tuple[Path, Done], capsys):
    folder = trained[0].parent
    code = run_here(
        main,
        *("tiny.py", "--work-dir", "half", "--amp", "--auto-scale-lr", "--no-validate"),
        *("--diff_seed", "--cfg-options", "train_cfg.max_iters=4", "param_scheduler=None"),
        folder=folder,
    )
    assert code == 0
    found = re.findall(LOSS, capsys.readouterr().out)
    expected = re.findall(LOSS, trained[1].printed)
    assert [float(rate) for rate, _ in found] == [pytest.approx(5e-3 * 2 / 16)] * 4
    # bfloat16 has eight bits: the same loss of the same images, and yet not the same bits.
    assert float(found[0][1]) == pytest.approx(float(expected[0][1]), rel=0.02)
    wrapper = (folder / "half" / "tiny.py").read_text()
    assert "HostAmpOptimWrapper" in wrapper
    assert not (folder / "half" / "metrics.json").exists()


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_with_one_line(tiny_folder: Path, capsys):
    code = run_here(
        main,
        *("tiny.py", "--work-dir", "diverged", "--cfg-options"),
        *("optim_wrapper.optimizer.lr=1e20", "param_scheduler=None"),
        folder=tiny_folder,
    )
    line = errors(capsys)
    assert code == 2
    assert "5 iterations in a row" in line
    assert re.search(r"first in iteration \d+ in decode.loss_ce", line)
    assert not list((tiny_folder / "diverged").glob("*.pth"))


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["another head", "no numbers"])
def test_weights_that_are_no_start(
    problem: str, trained: tuple[Path, Done], tmp_path: Path, capsys
):
    folder = trained[0].parent
    state = read_checkpoint(folder / "run" / "iter_12.pth")["state_dict"]
    if problem == "no numbers":
        state["decode_head.conv_seg.bias"] = torch.full((3,), torch.nan)
    else:
        state = {f"roi_head.{k}" if "head" in k else k: value for k, value in state.items()}
    torch.save({"state_dict": state}, tmp_path / "start.pth")
    arguments = ("--work-dir", str(tmp_path), "--load-from", str(tmp_path / "start.pth"))
    assert run_here(main, "tiny.py", *arguments, folder=folder) == 2
    expected = {
        "another head": "of a segmentor with UPerHead, got a detector in",
        "no numbers": "NaN or infinity in",
    }
    assert expected[problem] in errors(capsys)


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(
    tiny_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    write = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if ".iter_2." in path.name:
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    code = run_here(
        main,
        *("tiny.py", "--work-dir", str(tmp_path), "--no-validate", "--cfg-options"),
        *("default_hooks.checkpoint.interval=1", "default_hooks.checkpoint.max_keep_ckpts=1"),
        folder=tiny_folder,
    )
    line = errors(capsys)
    assert code == 2
    assert "No space left on device" in line
    assert f"{tmp_path}/iter_1.pth is kept, --resume goes on from it" in line
    assert [path.name for path in tmp_path.glob("*.pth")] == ["iter_1.pth"]


def spoil(folder: Path, kind: str) -> None:
    """Makes one mistake in the images or masks, each of them."""
    for image in (folder / "images" / "train").iterdir():
        mask = folder / "masks" / "train" / image.name
        labels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        if kind == "no images":
            image.unlink(), mask.unlink()
        elif kind == "no mask":
            mask.unlink()
        elif kind == "another size":
            cv2.imwrite(str(mask), labels[:-4])
        elif kind == "labels":
            cv2.imwrite(str(mask), labels + 2)
        elif kind == "colours":
            cv2.imwrite(str(mask), np.dstack([labels * 100] * 3))
        elif kind == "16 bits":
            cv2.imwrite(str(mask), labels.astype(np.uint16) + 256)
        elif kind == "no image":
            image.write_bytes(b"no image")
        elif kind == "a broken image":
            image.write_bytes(image.read_bytes()[:200])
        elif kind == "too long":
            cv2.imwrite(str(image), np.zeros((1, 1000, 3), np.uint8))
            cv2.imwrite(str(mask), np.zeros((1, 1000), np.uint8))


FAULTS = {
    "no images": ["no images", "images/train"],
    "no mask": ["images/train/000.png"],
    "another size": ["masks/train/000.png is 64x44, its image 64x48"],
    "labels": ["masks/train/000.png", "3"],
    "colours": ["masks/train/000.png is RGB"],
    "16 bits": ["masks/train/000.png has 25"],
    "no image": ["images/train/000.png"],
    "a broken image": ["failed to load image: ", "/images/train/00"],
    "too long": ["expected an image that the transforms can take, got ", "/images/train/00"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_in_the_data_is_one_line_that_names_a_file(kind: str, tmp_path: Path, capfd):
    config = write_config(tmp_path / "c.py", write_images(tmp_path / "data", 2, 1))
    spoil(tmp_path / "data", kind)
    code = run_here(main, str(config), "--work-dir", str(tmp_path / "run"), folder=tmp_path)
    line = errors(capfd)
    assert code == 2
    assert all(word in line for word in FAULTS[kind]), line
    assert not list((tmp_path / "run").glob("*.pth"))


@pytest.mark.slow
def test_a_worker_names_the_mask_that_the_check_before_the_run_has_not_seen(tmp_path: Path):
    write_images(tmp_path / "data", num_train=52, num_val=1)
    config = write_config(tmp_path / "c.py", tmp_path / "data")
    for name in ("050.png", "051.png"):
        mask = np.full((48, 64), 7, np.uint8)
        cv2.imwrite(str(tmp_path / "data" / "masks" / "train" / name), mask)
    done = run_script(
        "train.py",
        *(str(config), "--work-dir", "run", "--cfg-options", "train_dataloader.num_workers=2"),
        "train_cfg.max_iters=60",
        folder=tmp_path,
    )
    assert done.code == 2
    (line,) = [line for line in done.errors.splitlines() if "error: " in line]
    assert re.search(r"train.py: error: CheckSegMap: .*masks/train/05[01].png .* got 7 in", line)


def test_a_mask_that_is_cut_short_is_told_from_its_image(tmp_path: Path):
    write_images(tmp_path, num_train=1, num_val=1)
    image, mask = (tmp_path / kind / "train" / "000.png" for kind in ("images", "masks"))
    mask.write_bytes(mask.read_bytes()[:-40])

    def load(data: dict[str, str]) -> None:
        raise OSError("image file is truncated")

    data = {"img_path": str(image), "seg_map_path": str(mask)}
    with pytest.raises(ValueError, match=rf"expected a mask .* got {mask}: image file is trunc"):
        NamingPipeline(load)(data)
    with pytest.raises(ValueError, match=rf"expected an image .* got {image}: image file is t"):
        NamingPipeline(load)({**data, "seg_map_path": str(tmp_path / "masks/val/000.png")})


ODD = {
    "smaller than the crop": (20, 14),
    "one row": (1, 64),
    "one pixel": (1, 1),
    "16 bits": (48, 64),
    "16 bits of grey": (48, 64),
    "transparent": (48, 64),
    "of a palette": (48, 64),
}


PLAIN = {"16 bits": "colour", "transparent": "colour", "16 bits of grey": "grey"}
PLAIN |= {"of a palette": "grey"}
"""Of odd ones the image of three bytes a pixel that has the same colours."""


def write_odd(path: Path, kind: str, pixels: np.ndarray) -> None:
    """Writes an image of four random channels (H, W, 4), or of the first ones of them."""
    if kind == "16 bits":
        cv2.imwrite(str(path), pixels[..., :3].astype(np.uint16) * 257)
    elif kind == "16 bits of grey":
        cv2.imwrite(str(path), pixels[..., 0].astype(np.uint16) * 257)
    elif kind == "of a palette":
        Image.fromarray(pixels[..., 0]).convert("P").save(path)
    elif kind == "grey":
        cv2.imwrite(str(path), np.dstack([pixels[..., 0]] * 3))
    else:
        cv2.imwrite(str(path), pixels if kind == "transparent" else pixels[..., :3])


def train_with(kind: str, folder: Path, capsys) -> tuple[list[str], dict[str, float]]:
    """Returns the losses of two steps, as printed, and the scores behind them."""
    config = write_config(folder / "c.py", write_images(folder / "data", 2, 1))
    generator = np.random.default_rng(0)
    height, width = ODD.get(kind, (48, 64))
    for part in ("train", "val"):
        for image in sorted((folder / "data" / "images" / part).iterdir()):
            write_odd(image, kind, generator.integers(0, 256, (height, width, 4), dtype=np.uint8))
            labels = generator.integers(0, 3, (height, width), dtype=np.uint8)
            cv2.imwrite(str(folder / "data" / "masks" / part / image.name), labels)
    options = ("train_cfg.max_iters=2", "train_cfg.val_interval=2")
    capsys.readouterr()
    code = run_here(
        main, str(config), "--work-dir", "run", "--cfg-options", *options, folder=folder
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    losses = [loss for _, loss in re.findall(LOSS, said.out)]
    return losses, json.loads((folder / "run" / "metrics.json").read_text())


plain: dict[str, tuple[list[str], dict[str, float]]] = {}
"""What :func:`train_with` has returned for the plain kinds."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_odd_images_are_trained_with_and_evaluated(kind: str, tmp_path: Path, capsys):
    (tmp_path / "odd").mkdir(), (tmp_path / "plain").mkdir()
    losses, scores = train_with(kind, tmp_path / "odd", capsys)
    assert len(losses) == 2 and all(0 < float(loss) < 10 for loss in losses)
    assert 0 <= scores["aAcc"] <= 1
    if kind in PLAIN:
        twin = PLAIN[kind]
        if twin not in plain:
            plain[twin] = train_with(twin, tmp_path / "plain", capsys)
        assert (losses, scores) == plain[twin]


BATCHES = {
    "evaluated": "of an evaluation, got several sizes; val_dataloader.batch_size=1",
    "trained with": "got several sizes beyond model.data_preprocessor.size",
}


@pytest.mark.slow
@pytest.mark.parametrize("part", BATCHES)
def test_images_of_two_sizes_in_one_batch_are_one_line(part: str, tmp_path: Path, capsys):
    more = {
        "evaluated": "val_dataloader['batch_size'] = 2\ntrain_cfg['val_interval'] = 1\n",
        "trained with": (
            "train_dataloader['dataset']['pipeline'] = [*train_pipeline[:3], train_pipeline[6]]\n"
        ),
    }[part]
    config = write_config(tmp_path / "c.py", write_images(tmp_path / "data", 2, 2), more)
    for folder in ("train", "val"):
        for kind in ("images", "masks"):
            path = tmp_path / "data" / kind / folder / "000.png"
            cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:32])
    arguments = (str(config), "--work-dir", "run", "--cfg-options", "train_cfg.max_iters=1")
    assert run_here(main, *arguments, folder=tmp_path) == 2
    assert BATCHES[part] in errors(capsys)


WRONG = {
    "a flag": (["--no-validat"], "--no-validat; did you mean --no-validate"),
    "a key": (["--cfg-options", "model.backbon.arch=t"], "did you mean backbone"),
    "a key of mmseg 0": (["--cfg-options", "data.samples_per_gpu=1"], "train_dataloader"),
    "the data": (["--cfg-options", "data_root=/no"], "/no/images/train"),
    "masks": (["--cfg-options", "val_seg_map_prefix=no"], "val_dataloader.dataset.data_prefix.seg"),
    "a batch": (
        ["--auto-scale-lr", "--cfg-options", "auto_scale_lr=None"],
        "auto_scale_lr.base_batch_size in tiny.py for --auto-scale-lr",
    ),
    "weights": (["--load-from", "no.pth"], "an existing checkpoint, got no.pth"),
    "GPUs": (["--gpus", "8"], "dist_train.sh CONFIG GPUS"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(name: str, tiny_folder: Path, capsys):
    arguments, expected = WRONG[name]
    assert run_here(main, "tiny.py", *arguments, folder=tiny_folder) == 2
    line = errors(capsys)
    assert expected in line
    assert "detector" not in line


@pytest.mark.slow
def test_a_jpeg_that_is_cut_short_is_refused_and_one_with_more_behind_its_end_is_not(
    tmp_path: Path, capsys
):
    config = write_config(tmp_path / "c.py", write_images(tmp_path / "data", 2, 1))
    content = {}
    for part in ("train", "val"):
        for image in (tmp_path / "data" / "images" / part).iterdir():
            jpeg = cv2.imencode(".jpg", cv2.imread(str(image)))[1].tobytes()
            content[image.with_suffix(".jpg")] = jpeg
            image.unlink()
    options = ("--cfg-options", "img_suffix=.jpg", "train_cfg.max_iters=1")
    for path, jpeg in content.items():
        path.write_bytes(jpeg + b"of the camera")
    arguments = (str(config), "--work-dir", "run", "--no-validate", *options)
    assert run_here(main, *arguments, folder=tmp_path) == 0, capsys.readouterr().err
    for path, jpeg in content.items():
        path.write_bytes(jpeg[: len(jpeg) // 2])
    capsys.readouterr()
    assert run_here(main, *arguments, folder=tmp_path) == 2
    assert re.search(r"expected a whole image, got \S*images/train/00[01].jpg", errors(capsys))


def test_an_old_config_has_one_of_its_name_to_use_instead(tmp_path: Path, capsys):
    config = tmp_path / "upernet_internimage_t_512_160k_ade20k.py"
    config.write_text(
        "_base_ = ['../_base_/models/upernet_r50.py', '../_base_/datasets/ade20k.py']\n"
        "optimizer = dict(type='AdamW')\nrunner = dict(type='IterBasedRunner', max_iters=160000)\n"
        "checkpoint_config = dict(by_epoch=False, interval=1000)\n"
        "evaluation = dict(interval=16000, metric='mIoU', save_best='mIoU')\n"
    )
    assert main([str(config)]) == 2
    line = errors(capsys)
    assert "use segmentation/configs/ade20k/upernet_internimage_t_512_160k_ade20k.py, or" in line
    assert "runner -> train_cfg" in line


def test_an_earlier_run_is_set_aside(trained: tuple[Path, Done], tmp_path: Path):
    folder, _ = trained
    for name in ("iter_24.pth", "last_checkpoint", "metrics.json"):
        shutil.copy(folder / name, tmp_path)
    code = run_here(
        main,
        *("tiny.py", "--work-dir", str(tmp_path), "--no-validate", "--load-from"),
        *(str(folder / "iter_12.pth"), "--cfg-options", "train_cfg.max_iters=1"),
        folder=folder.parent,
    )
    assert code == 0
    (aside,) = tmp_path.glob("before_*")
    assert {path.name for path in aside.iterdir()} == {
        "iter_24.pth",
        "last_checkpoint",
        "metrics.json",
    }
    assert (tmp_path / "iter_1.pth").is_file()
