"""docs/custom_data.md, done as its reader would: each command is run as it stands on the page."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from classification.launch.arguments import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "custom_data.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
SMALL = shlex.split(
    "MODEL.ARCH internimage_test_t DATA.IMG_SIZE 16 DATA.NUM_WORKERS 0 AMP_OPT_LEVEL O0"
)


def command(start: str, part: str) -> list[str]:
    """The command of a part of the page that begins so."""
    text = PAGE.split("## Try it now")[1 if part == "digits" else 0]
    blocks = re.findall(r"(?:^ {4}.+\n)+", text, re.MULTILINE)
    (found,) = (block for block in blocks if block.strip().startswith(start))
    return shlex.split(found.replace("\\\n", " "))


def run(words: list[str], *, replace: dict[str, str]) -> str:
    """Runs a command with other paths; returns what it printed."""
    for old, new in replace.items():
        words = [new + word.removeprefix(old) if word.startswith(old) else word for word in words]
    program = sys.executable if words[0] == "python" else str(BIN / words[0])
    done = subprocess.run([program, *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_the_page_lead_from_images_to_a_prediction(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    runs = {"runs/": f"{tmp_path}/"}
    assert "1797 images" in run(command("python", "digits"), replace=runs)
    train = command("torchrun", "digits")  # ends with --opts
    run([*train, *SMALL, "TRAIN.EPOCHS", "5"], replace=runs)
    summary = json.loads((tmp_path / "own" / "internimage_n_scratch" / "summary.json").read_text())
    assert summary["top1"] > 80
    printed = run(command("internimage", "digits"), replace=runs)
    assert re.search(r"^ +1 +0\.\d+ +3 +3$", printed, re.MULTILINE), printed

    # The same for photographs: here they are three of the digits under other names, and the weights
    # to go on from are those of above, of ten classes.
    for digit, name in (("0", "zero"), ("3", "three"), ("9", "nine")):
        shutil.copytree(tmp_path / "digits" / "train" / digit, tmp_path / "photos" / name)
    weights = tmp_path / "own" / "internimage_n_scratch" / "model.safetensors"
    places = {
        **runs,
        "photos": f"{tmp_path}/photos",
        "data": f"{tmp_path}/data",
        "internimage_t_1k_224": str(weights),
        "photo.jpg": f"{tmp_path}/digits/val/3/0045.png",
    }
    assert "in 3 classes" in run(command("python", "photos"), replace=places)
    # Few steps, so a higher rate.
    options = [*SMALL, "DATA.BATCH_SIZE", "16", "TRAIN.EPOCHS", "8", "TRAIN.BASE_LR", "0.03"]
    run([*command("torchrun", "photos"), "--opts", *options], replace=places)
    summary = json.loads((tmp_path / "pets/internimage_t_finetune/summary.json").read_text())
    assert summary["top1"] > 60
    printed = run(command("internimage", "photos"), replace=places)
    assert re.search(r"^ +1 +0\.\d+ +\d +(zero|three|nine)$", printed, re.MULTILINE), printed


def test_the_settings_that_the_page_suggests_are_understood(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    words = command("torchrun", "photos")
    start = words[words.index("classification/train.py") + 1 :]
    tips = re.findall(r"`(--[^`]+)`", PAGE.split("## What to change first")[1])
    assert len(tips) >= 8
    for tip in tips:
        if " " in tip or tip == "--use-checkpoint":
            parse_arguments([*start, *shlex.split(tip)])
