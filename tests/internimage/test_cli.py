"""The command ``internimage``, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import internimage
import internimage.predict
from internimage import cli

SIZE = "internimage_test_t"
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@pytest.fixture(scope="module")
def folder(filled_model, tmp_path_factory):
    """A folder with images, checkpoints and things that are neither."""
    folder = tmp_path_factory.mktemp("cli")
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.jpg")
    Image.fromarray(noise[:, ::-1].copy()).save(folder / "mirror.png")
    metadata = internimage.CheckpointMetadata(
        model_name=SIZE,
        num_classes=len(NAMES),
        class_names=NAMES,
        preprocessing=internimage.Preprocessing(image_size=48, mean=(0.5, 0.5, 0.5)),
    )
    model = filled_model(SIZE)
    internimage.save_checkpoint(model, folder / "model.safetensors", metadata=metadata)
    torch.save({"model": model.state_dict(), "epoch": 1}, folder / "training.pth")
    (folder / "text.txt").write_text("no image\n")
    (folder / "names.txt").write_text("\n".join(name.upper() for name in NAMES) + "\n")
    (folder / "cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:300])
    (folder / "empty.png").write_bytes(b"")
    return folder


def run(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-m", "internimage.cli", *arguments],
        cwd=folder, env=offline, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def call(folder, monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Run in this process, which is ten times faster than one of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_a_checkpoint_with_metadata_is_all_that_predict_needs(folder, filled_model):
    done = run(folder, "predict", "photo.jpg", "mirror.png", "--checkpoint", "model.safetensors",
               "--topk", "3", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"] == SIZE
    assert answer["image_size"] == 48
    assert answer["random_weights"] is False
    assert [entry["image"] for entry in answer["images"]] == ["photo.jpg", "mirror.png"]
    predictor = internimage.predict.build_predictor(checkpoint=folder / "model.safetensors")
    with torch.no_grad():
        logits = filled_model(SIZE)(predictor.prepare(folder / "photo.jpg"))[0]
    best = logits.softmax(0).topk(3)
    labels = answer["images"][0]["labels"]
    assert [label["index"] for label in labels] == best.indices.tolist()
    assert [label["name"] for label in labels] == [NAMES[i] for i in best.indices.tolist()]
    assert [label["score"] for label in labels] == pytest.approx(best.values.tolist(), rel=1e-4)


@pytest.mark.slow
def test_bad_input_ends_in_one_line_and_exit_code_2(folder):
    done = run(folder, "predict", "text.txt", "--checkpoint", "model.safetensors")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "internimage predict: load_image: expected an image file, got text.txt"
    )


def test_the_table_has_a_row_for_each_label(folder, monkeypatch, capsys):
    code, out, _ = call(folder, monkeypatch, capsys, "predict", "photo.jpg", "--checkpoint",
                        "model.safetensors", "--topk", "2")  # fmt: skip
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.split()[-1:] and line[:2] == "  "]
    assert rows[0] == ["rank", "score", "class", "label"]
    assert [row[0] for row in rows[1:]] == ["1", "2"]
    assert all(row[3] == NAMES[int(row[2])] for row in rows[1:])


def test_class_names_from_a_file_win_over_the_checkpoints(folder, monkeypatch, capsys):
    code, out, _ = call(folder, monkeypatch, capsys, "predict", "photo.jpg", "--checkpoint",
                        "model.safetensors", "--class-names", "names.txt", "--json")  # fmt: skip
    assert code == 0
    labels = json.loads(out)["images"][0]["labels"]
    assert all(label["name"] == NAMES[label["index"]].upper() for label in labels)


def test_a_training_checkpoint_needs_the_models_name(folder, monkeypatch, capsys):
    arguments = ("predict", "photo.jpg", "--checkpoint", "training.pth", "--json")
    code, _, err = call(folder, monkeypatch, capsys, *arguments)
    assert code == 2
    assert "training.pth, which does not name its model; give --model NAME" in err
    code, out, _ = call(folder, monkeypatch, capsys, *arguments, "--model", SIZE)
    assert code == 0
    answer = json.loads(out)
    assert answer["image_size"] == 32
    assert answer["images"][0]["labels"][0]["name"] is None


def test_a_broken_image_costs_the_others_nothing(folder, monkeypatch, capsys):
    images = ("photo.jpg", "text.txt", "mirror.png", "none.png")
    arguments = ("predict", *images, "--checkpoint", "model.safetensors")
    code, out, err = call(folder, monkeypatch, capsys, *arguments)
    assert code == 2
    assert ["got text.txt" in err, "got none.png" in err, err.count("\n")] == [True, True, 2]
    assert "\nphoto.jpg\n" in out and "\nmirror.png\n" in out
    code, out, _ = call(folder, monkeypatch, capsys, *arguments, "--json")
    assert code == 2
    answers = json.loads(out)["images"]
    assert [answer["image"] for answer in answers] == list(images)
    assert ["error" in answer for answer in answers] == [False, True, False, True]


def test_weights_with_nan_give_no_answer(folder, filled_model, tmp_path, monkeypatch, capsys):
    path = tmp_path / "nan.pth"
    weights = filled_model(SIZE).state_dict()
    torch.save(weights | {"head.bias": torch.full_like(weights["head.bias"], torch.nan)}, path)
    code, out, err = call(folder, monkeypatch, capsys, "predict", "photo.jpg", "--model", SIZE,
                          "--checkpoint", str(path))  # fmt: skip
    assert (code, out) == (2, "")
    assert "expected finite scores" in err


def test_random_weights_are_the_same_at_every_call(folder, monkeypatch, capsys):
    arguments = ("predict", "photo.jpg", "--model", SIZE, "--random-weights", "--json")
    first, second = (call(folder, monkeypatch, capsys, *arguments)[1] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("place", "name"),
    [("cli_commands.run_list", "internimage list"), ("cli.build_parser", "internimage")],
)
def test_ctrl_c_is_one_line(place, name, folder, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"internimage.{place}", stop)
    line = f"{name}: stopped by SIGINT\n"
    assert call(folder, monkeypatch, capsys, "list") == (130, "", line)


@pytest.mark.slow
def test_a_closed_standard_output_is_no_failure(folder):
    command = f"{sys.executable} -m internimage.cli list >&-"
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_random_weights_are_called_so(folder, monkeypatch, capsys):
    code, out, _ = call(folder, monkeypatch, capsys, "predict", "photo.jpg", "--model", SIZE,
                        "--random-weights", "--image-size", "64")  # fmt: skip
    assert code == 0
    assert "weights: random: the answers mean nothing" in out
    assert f"{SIZE}, 64 px" in out
    assert "--class-names FILE" in out


# Arguments of predict behind the image, and what the one line of the error must say.
BAD = {
    "missing file": (["nothing.png"], "expected an existing image file, got nothing.png"),
    "cut": (["cut.jpg"], "truncated or broken"),
    "empty": (["empty.png"], "empty file"),
    "folder": (["."], "got the folder"),
    "unknown model": (
        ["photo.jpg", "--model", "internimage_q"],
        "got 'internimage_q'; nearest: internimage_",
    ),
    "no checkpoint": (
        ["photo.jpg", "--checkpoint", "nothing.pth"],
        "expected an existing file, got nothing.pth",
    ),
    "text checkpoint": (["photo.jpg", "--checkpoint", "text.txt"], "expected a checkpoint"),
    "other size": (
        ["photo.jpg", "--checkpoint", "model.safetensors", "--model", "internimage_n"],
        "wrong-shaped",
    ),
    "too few names": (
        ["photo.jpg", "--checkpoint", "model.safetensors", "--class-names", "text.txt"],
        "expected 7 class names, got 1",
    ),
    "no names": (["photo.jpg", "--class-names", "empty.png"], "expected one name a line"),
    "names of bytes": (["photo.jpg", "--class-names", "photo.jpg"], "expected UTF-8 text"),
    "no weights": (["photo.jpg", "--model", SIZE], "--random-weights"),
    "no model": (["photo.jpg", "--random-weights"], "give --model NAME"),
    "both": (
        ["photo.jpg", "--checkpoint", "model.safetensors", "--random-weights"],
        "got both",
    ),
    "offline": (["photo.jpg", "--model", "internimage_t_1k_224"], "by hand: fetch https://"),
    "device": (
        ["photo.jpg", "--checkpoint", "model.safetensors", "--device", "abacus"],
        "expected a device of this machine, got --device abacus",
    ),
    "device without values": (
        ["photo.jpg", "--checkpoint", "model.safetensors", "--device", "meta"],
        "expected a device of this machine, got --device meta",
    ),
    "device without module": (
        ["photo.jpg", "--checkpoint", "model.safetensors", "--device", "hpu"],
        "expected a device of this machine, got --device hpu",
    ),
    "huge image": (["photo.jpg", "--image-size", "1000000"], "<= 8192 pixels, got 1000000"),
    "average of random weights": (
        ["photo.jpg", "--model", SIZE, "--random-weights", "--use-ema"],
        "expected a checkpoint beside use_ema",
    ),
    "average": (
        ["photo.jpg", "--checkpoint", "training.pth", "--model", SIZE, "--use-ema"],
        "expected model_ema",
    ),
    "clip size": (
        ["photo.jpg", "--model", "test_h", "--random-weights", "--image-size", "48"],
        "multiples of 32",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_every_bad_input_has_its_line(kind, folder, monkeypatch, capsys):
    arguments, message = BAD[kind]
    if not any(name in arguments for name in ("--checkpoint", "--model", "--random-weights")):
        arguments = [*arguments, "--checkpoint", "model.safetensors"]
    code, out, err = call(folder, monkeypatch, capsys, "predict", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("internimage predict: ")
    assert err.count("\n") == 1


# Metadata of a checkpoint, and what the one line of the error must say.
BAD_METADATA = {
    "unknown override": ({"overrides": {"foo": 1}}, "expected arguments that make .*'foo'"),
    "override of another type": ({"overrides": {"channels": "x"}}, "expected channels .* got 'x'"),
    "infinite width": (
        {"overrides": {"mlp_ratio": 1e308}},
        "expected arguments that make .*infinity",
    ),
    "huge width": ({"overrides": {"mlp_ratio": 1e12}}, "expected arguments that make .*allocate"),
    "backbone": ({"overrides": {"features_only": True}}, "other than .*features_only"),
    "list of names": ({"model_name": ["a"]}, r"expected model_name = text, got \['a'\]"),
    "unknown model": ({"model_name": "internimage_q"}, "got 'internimage_q'; nearest"),
    "huge image": ({"preprocessing": {"image_size": 10**6}}, "<= 8192 pixels, got 1000000"),
}


@pytest.mark.parametrize("kind", BAD_METADATA)
def test_hostile_metadata_has_its_line(kind, folder, tmp_path, filled_model, monkeypatch, capsys):
    fields, message = BAD_METADATA[kind]
    whole = {"model_name": SIZE, "num_classes": 7, "preprocessing": {}}
    weights = dict(filled_model(SIZE).state_dict())
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "internimage": json.dumps(whole | fields)}, path)
    code, out, err = call(
        folder, monkeypatch, capsys, "predict", "photo.jpg", "--checkpoint", str(path)
    )
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(message, err)


@pytest.mark.parametrize(
    "command", [("predict", "photo.jpg", "--model", SIZE, "--checkpoint"), ("convert",)]
)
def test_a_number_in_place_of_the_last_bias_has_its_line(
    command, folder, tmp_path, filled_model, monkeypatch, capsys
):
    path = tmp_path / "model.pth"
    torch.save(filled_model(SIZE).state_dict() | {"head.bias": torch.tensor(1.0)}, path)
    rest = () if command[0] == "predict" else (str(tmp_path / "new.pth"), "--model", SIZE)
    code, _, err = call(folder, monkeypatch, capsys, *command, str(path), *rest)
    assert (code, err.count("\n")) == (2, 1)
    assert "expected head.bias of shape (classes,), got ()" in err


@pytest.mark.parametrize("arguments", [["predict"], ["fly"], ["predict", "a.png", "--topk", "0"]])
def test_a_wrong_command_line_exits_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "internimage" in capsys.readouterr().err


def test_features_are_the_stage_maps(folder, filled_model, tmp_path, monkeypatch, capsys):
    code, _, err = call(folder, monkeypatch, capsys, "features", "photo.jpg", "mirror.png",
                        "--checkpoint", "model.safetensors", "--output", str(tmp_path))  # fmt: skip
    assert code == 0, err
    saved = load_file(tmp_path / "photo.safetensors")
    predictor = internimage.predict.build_predictor(checkpoint=folder / "model.safetensors")
    with torch.no_grad():
        maps = filled_model(SIZE).forward_intermediates(
            predictor.prepare(folder / "photo.jpg"), intermediates_only=True
        )
    assert sorted(saved) == ["stage0", "stage1", "stage2", "stage3"]
    for i, expected in enumerate(maps):
        torch.testing.assert_close(saved[f"stage{i}"], expected[0])
    assert (tmp_path / "mirror.safetensors").exists()
    code, _, err = call(folder, monkeypatch, capsys, "features", "photo.jpg", "./photo.jpg",
                        "--checkpoint", "model.safetensors", "--output", str(tmp_path))  # fmt: skip
    assert code == 2
    assert "got twice: ['photo']" in err


@pytest.mark.parametrize("target", ["new.safetensors", "new.pth"])
def test_convert_keeps_weights_and_metadata(target, folder, tmp_path, monkeypatch, capsys):
    path = tmp_path / target
    code, out, err = call(folder, monkeypatch, capsys, "convert", "model.safetensors", str(path),
                          "--model", SIZE)  # fmt: skip
    assert code == 0, err
    assert f"checked against {SIZE}" in out
    before, after = (internimage.read_checkpoint(p) for p in (folder / "model.safetensors", path))
    assert after.metadata == before.metadata
    torch.testing.assert_close(after.state_dict, before.state_dict, rtol=0, atol=0)


def test_convert_replaces_a_file_by_request_only(folder, tmp_path, monkeypatch, capsys):
    path = tmp_path / "new.safetensors"
    arguments = ("convert", "model.safetensors", str(path))
    assert call(folder, monkeypatch, capsys, *arguments)[0] == 0
    code, _, err = call(folder, monkeypatch, capsys, *arguments)
    assert code == 2
    assert "expected a new file as target (or --force)" in err
    assert call(folder, monkeypatch, capsys, *arguments, "--force")[0] == 0
    code, _, err = call(folder, monkeypatch, capsys, *arguments[:2], str(tmp_path / "no" / "x.pth"))
    assert code == 2
    assert "expected a target in an existing folder" in err
    assert not (tmp_path / "no").exists()


def test_convert_refuses_what_does_not_fit(folder, tmp_path, monkeypatch, capsys):
    path = tmp_path / "new.safetensors"
    code, _, err = call(folder, monkeypatch, capsys, "convert", "training.pth", str(path),
                        "--model", "internimage_test_s")  # fmt: skip
    assert code == 2
    assert "missing" in err
    assert not path.exists()


def test_list_names_releases_and_sizes(folder, monkeypatch, capsys):
    code, out, _ = call(folder, monkeypatch, capsys, "list")
    assert code == 0
    assert all(name in out for name in internimage.list_models() + internimage.list_variants())
    _, out, _ = call(folder, monkeypatch, capsys, "list", "*_640", "--json")
    assert [row["name"] for row in json.loads(out)["models"]] == ["internimage_h_22kto1k_640"]


def test_info_tells_size_cost_and_files(folder, monkeypatch, capsys):
    code, out, _ = call(folder, monkeypatch, capsys, "info", "internimage_t_1k_224", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["parameters"] == 29_918_424
    assert facts["gmacs"] == pytest.approx(4.79, abs=0.01)
    assert facts["published_top1_percent"] == 83.5
    assert facts["pth"].endswith("OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth")
    _, out, _ = call(folder, monkeypatch, capsys, "info", "n", "--image-size", "64")
    assert "image_size" in out
    code, _, err = call(folder, monkeypatch, capsys, "info", "n", "--image-size", "1000000")
    assert code == 2
    assert "<= 8192 pixels, got 1000000" in err
    code, _, err = call(folder, monkeypatch, capsys, "info", "internimage_q")
    assert code == 2
    assert "nearest" in err


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(folder):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "internimage.cli", "list"],
        cwd=folder, env=os.environ | {"PYTHONWARNINGS": "ignore"}, stdout=write_end,
        stderr=subprocess.PIPE, text=True, timeout=300, check=False,
    )  # fmt: skip
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")
