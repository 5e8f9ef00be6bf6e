"""The demo as `make demo` runs it: one run, shared by all tests here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.predict import build_predictor
from tools.demo import CONFIG, PICTURES, RELEASED_MODEL, RESULTS, example_digit, shown
from tools.demo import main as run_demo
from tools.plot_predictions import Tile

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"

THREES = [Tile(np.zeros((8, 8, 3), np.uint8), name, 0.9, truth="3") for name in "83"]
OTHERS = [Tile(np.zeros((8, 8, 3), np.uint8), "7", 0.9, truth="7")]


def test_the_digit_to_look_at_is_a_three_and_a_right_one_if_there_is_any():
    wrong, right = THREES
    assert example_digit([*OTHERS, wrong, right]) is right
    assert example_digit([*OTHERS, wrong]) is wrong


@pytest.mark.slow
def test_a_demo_that_fails_leaves_no_result_of_an_earlier_one(tmp_path: Path, capfd, monkeypatch):
    for name in (*RESULTS, "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("tools.demo.TRAIN", tmp_path / "no_such_script.py")
    assert run_demo(["--out", str(tmp_path)]) != 0
    assert os.listdir(tmp_path) == ["notes.txt"]
    assert "demo: the training did not finish" in capfd.readouterr().err


@pytest.mark.slow
def test_the_demo_trains_anew_in_its_folder(tmp_path: Path, capfd, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text("import sys; print(*sys.argv[1:]); sys.exit(2)")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("tools.demo.TRAIN", script)
    monkeypatch.setattr("tools.demo.NUM_RANKS", 1)
    assert run_demo(["--out", str(tmp_path / "out"), "--opts", "TRAIN.EPOCHS", "1"]) != 0
    given = f"--cfg {shown(CONFIG)} --output {tmp_path / 'out'} --overwrite --opts TRAIN.EPOCHS 1"
    assert given in capfd.readouterr().out


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, str(DEMO), "--out", str(folder)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def metrics(demo: tuple[Path, str]) -> dict:
    return json.loads((demo[0] / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_at_most_three_of_360_digits_are_wrong(metrics: dict):
    assert metrics["num_test_images"] == 360
    assert metrics["num_wrong"] <= 3
    assert metrics["top1"] >= 99.0
    assert metrics["top1"] == pytest.approx(100 * (360 - metrics["num_wrong"]) / 360)


@pytest.mark.slow
def test_the_saved_weights_score_what_the_training_measured(demo, metrics: dict):
    summary = json.loads((demo[0] / CONFIG.stem / "summary.json").read_text(encoding="utf-8"))
    assert metrics["top1"] == pytest.approx(summary["top1"])
    assert metrics["weights_sha256"] == summary["weights_sha256"]
    assert metrics["train_seconds"] == summary["train_seconds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_there_and_no_blank(demo, name: str):
    with Image.open(demo[0] / name) as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 100


@pytest.mark.slow
def test_the_digit_on_file_is_classified_right(demo):
    predictor = build_predictor(checkpoint=demo[0] / "model.safetensors")
    (label,) = predictor.classify(predictor.prepare(demo[0] / "digit.png"), topk=1)[0]
    assert label.name == "3"
    assert label.score > 0.5


@pytest.mark.slow
def test_it_ends_with_accuracy_pictures_and_the_next_command(demo, metrics: dict):
    printed = demo[1]
    assert f"Test accuracy {metrics['top1']:.2f} %: {metrics['num_wrong']} of 360" in printed
    for name in PICTURES:
        assert str(demo[0] / name) in printed
    assert printed.splitlines()[-1].endswith(f"predict photo.jpg --model {RELEASED_MODEL}")


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_its_ranks(tmp_path: Path):
    def lines(process: subprocess.Popen) -> Iterator[str]:
        yield from process.stdout

    with subprocess.Popen(
        [sys.executable, str(DEMO), "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        next(line for line in lines(process) if line.startswith("epoch  1/"))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        # The pipes end when the demo, torchrun and both ranks have gone.
        _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "demo: the training did not finish" in errors
    assert not (tmp_path / "metrics.json").exists()
