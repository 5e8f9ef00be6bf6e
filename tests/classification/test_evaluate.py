"""Saved weights give the figures of the training again."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import internimage
from classification.distributed import Ranks
from classification.evaluate import main
from classification.run import prepare

# The CLIP-projector head takes multiples of 32 only, which the first forward pass finds out.
BAD_SIZE = ["--opts", "MODEL.ARCH", "internimage_test_h", "DATA.IMG_SIZE", "40"]


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """``main`` sets handlers; pytest's come back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_saved_files_give_the_scores_of_the_summary(make_config, small_yaml: Path, capsys):
    config = make_config()
    prepare(config, Ranks(0, 1, torch.device("cpu"))).train()
    folder = Path(config.OUTPUT) / "small"
    summary = json.loads((folder / "summary.json").read_text())

    def scores(*arguments: object) -> dict:
        capsys.readouterr()
        assert main(["--cfg", str(small_yaml), *map(str, arguments)]) == 0
        return json.loads(capsys.readouterr().out)

    final = scores("--checkpoint", folder / "model.safetensors")
    averaged = scores("--checkpoint", folder / "ckpt_epoch_2.pth", "--use-ema", "--batch-size", 7)
    trained = scores("--checkpoint", folder / "ckpt_epoch_2.pth")
    for key in ("top1", "top5"):
        assert final[key] == averaged[key] == summary[key]
    assert final["num_images"] == 360
    assert final["loss"] == pytest.approx(averaged["loss"], rel=1e-5)
    assert trained["loss"] != pytest.approx(averaged["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cfg", "YAML"], "required: --checkpoint"),
        (["--cfg", "YAML", "--checkpoint", "no.pth"], "no.pth"),
        (["--cfg", "YAML", "--checkpoint", "YAML"], "small.yaml"),
        (["--cfg", "YAML", "--checkpoint", "x", "--use-em"], "did you mean --use-ema?"),
        (["--cfg", "YAML", "--checkpoint", "WEIGHTS", *BAD_SIZE], "multiples of 32"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    small_yaml: Path, tmp_path: Path, capsys, arguments, message
):
    weights = tmp_path / "weights.safetensors"
    internimage.save_checkpoint(internimage.create_model("test_h", num_classes=10), weights)
    paths = {"YAML": str(small_yaml), "WEIGHTS": str(weights)}
    assert main([paths.get(text, text) for text in arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("evaluate.py: error: ") and printed.count("\n") == 1
