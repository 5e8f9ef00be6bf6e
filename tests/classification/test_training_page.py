"""docs/training.md says what the scripts do."""

import re
import shlex
from pathlib import Path

import pytest

from classification.config import flatten, get_default_config
from classification.evaluate import main as evaluate
from classification.runs.checkpoint import BEST, MAY_CHANGE
from classification.runs.logs import LOG
from classification.runs.run_folder import CONFIG, CURVES, EVENTS, METRICS, SUMMARY, WEIGHTS
from classification.train import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
SPANS = re.findall(r"`([^`\n]+)`", PAGE)


def commands() -> list[str]:
    """The indented blocks, each as one line."""
    blocks = re.findall(r"(?:^ {4}.+\n)+", PAGE, re.MULTILINE)
    return [" ".join(block.replace("\\\n", " ").split()) for block in blocks]


def test_the_settings_that_may_change_are_those_of_the_code():
    listed = PAGE.partition("These settings may change: ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([A-Z_.]+)`", listed)) == MAY_CHANGE


def test_every_setting_that_the_page_names_exists():
    named = {span for span in SPANS if re.fullmatch(r"[A-Z]+(\.[A-Z_]+)+|[A-Z]+_[A-Z_]+", span)}
    assert named
    of_the_environment = {name for name in named if name.startswith("TORCH_")}
    assert named - of_the_environment <= dict(flatten(get_default_config())).keys()


def test_the_table_has_the_files_that_a_run_leaves():
    first_column = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE))
    checkpoints = {"ckpt_epoch_N.pth", "ckpt_epoch_N_step_M.pth", BEST}
    written = {CONFIG, CURVES, METRICS, SUMMARY, WEIGHTS, EVENTS, LOG.format(rank="{N}")}
    assert {name for name in first_column if not name.startswith(("-", "TRAIN"))} == (
        checkpoints | written
    )


def test_the_training_command_is_understood(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    (command,) = (text for text in commands() if "classification/train.py" in text)
    arguments = shlex.split(command.partition("classification/train.py")[2])
    (options,) = (span for span in SPANS if span.startswith("--opts TRAIN"))
    config, overwrite = parse_arguments([*arguments, "--overwrite", *shlex.split(options)])
    assert (config.OUTPUT, config.MODEL.NAME) == ("runs/mine", "internimage_n_digits_32")
    assert (config.TRAIN.EPOCHS, config.SEED, overwrite) == (4, 1, True)


def test_the_evaluation_command_fails_only_for_want_of_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("internimage.script.raise_on_stop_signals", lambda: None)
    (command,) = (text for text in commands() if "classification/evaluate.py" in text)
    arguments = shlex.split(command.partition("classification/evaluate.py")[2])
    arguments[-1] = str(tmp_path / "model.safetensors")
    assert evaluate([*arguments, "--use-ema"]) == 2
    assert f"a released name for MODEL.RESUME, got {arguments[-1]}" in capsys.readouterr().err
