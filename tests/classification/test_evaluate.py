"""Saved weights give the figures of the training again, exactly; and how fast the model is."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import internimage
from classification import evaluate, train
from classification.config import get_config
from classification.data import build_data
from classification.distributed import Ranks
from classification.inference import build_forward
from classification.models import build_metadata, build_model
from classification.runs.run import prepare
from classification.throughput import measure
from tests.classification.tiny_sets import write_data_set

ROOT = Path(__file__).resolve().parents[2]
ONE_RANK = Ranks(0, 1, torch.device("cpu"))
# The CLIP-projector head takes multiples of 32 only, which the first forward pass finds out.
BAD_SIZE = ["--opts", "MODEL.ARCH", "internimage_test_h", "DATA.IMG_SIZE", "40"]
FIGURES = ("loss", "top1", "top5", "num_images")


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """``main`` sets handlers; pytest's come back afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def scores(main, small_yaml: Path, capsys, *arguments: object) -> dict:
    """What a script prints, as JSON."""
    capsys.readouterr()
    assert main(["--cfg", str(small_yaml), *map(str, arguments)]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O0", "O1"])
def test_the_saved_files_give_the_scores_of_the_summary(
    make_config, small_yaml: Path, capsys, level: str
):
    options = ["AMP_OPT_LEVEL", level]
    config = make_config(*options)
    run = prepare(config, ONE_RANK)
    run.train()
    run.close()
    folder = Path(config.OUTPUT) / "small"
    summary = json.loads((folder / "summary.json").read_text())
    last = folder / "ckpt_epoch_2.pth"

    def evaluated(*arguments: object) -> dict:
        typed = (*arguments, "--opts", *options)
        return scores(evaluate.main, small_yaml, capsys, *typed)

    final = evaluated("--checkpoint", folder / "model.safetensors")
    assert (final["top1"], final["top5"]) == (summary["top1"], summary["top5"])
    assert final["num_images"] == summary["num_test_images"] == 360
    assert final["weights"].endswith("model.safetensors")
    # the same weights in another file: to the last bit
    averaged = evaluated("--checkpoint", last, "--use-ema")
    by_train = scores(
        train.main, small_yaml, capsys, "--eval", "--resume", last, "--opts", *options
    )
    for other in (averaged, by_train):
        assert [other[key] for key in FIGURES] == [final[key] for key in FIGURES]
        assert other["weights"].startswith("averaged weights of ")
    in_other_batches = evaluated("--checkpoint", last, "--use-ema", "--batch-size", 7)
    assert in_other_batches["loss"] == pytest.approx(final["loss"], rel=1e-3)
    in_training = evaluated("--checkpoint", last)
    assert in_training["loss"] != pytest.approx(final["loss"], rel=1e-3)


def test_a_checkpoint_without_an_average_is_evaluated_as_it_is(small_yaml, capsys, tmp_path):
    path = tmp_path / "weights.safetensors"
    internimage.save_checkpoint(internimage.create_model("test_t", num_classes=10), path)
    found = scores(train.main, small_yaml, capsys, "--eval", "--pretrained", path)
    assert found["weights"] == str(path)


def test_22k_weights_are_evaluated_on_the_1000_classes(tmp_path: Path, capsys):
    """By selecting logits, or rows of the last layer: the same."""
    write_data_set("imagenet", tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "train")  # nothing is trained
    (tmp_path / "data" / "meta_data" / "train.txt").unlink()
    torch.manual_seed(1)
    path = tmp_path / "weights.safetensors"
    internimage.save_checkpoint(internimage.create_model("test_t", num_classes=21841), path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "AMP_OPT_LEVEL: O0\nMODEL: {ARCH: internimage_test_t}\n"
        f"DATA: {{BATCH_SIZE: 2, IMG_SIZE: 32, NUM_WORKERS: 0, DATA_PATH: {tmp_path}/data}}\n"
    )
    rows = scores(evaluate.main, recipe, capsys, "--checkpoint", path)
    assert "1,000 of 21,841 classes selected" in rows["weights"]
    typed = ["--checkpoint", path, "--opts", "EVAL_22K_TO_1K", "True"]
    logits = scores(evaluate.main, recipe, capsys, *typed)
    assert logits["loss"] == pytest.approx(rows["loss"], rel=1e-6)
    assert logits["top5"] == rows["top5"]


def test_22k_logits_need_data_of_1000_classes(make_config):
    config = make_config("EVAL_22K_TO_1K", "True", "EVAL_MODE", "True", "MODEL.RESUME", "x")
    model = build_model(config, num_classes=10)
    assert model.num_classes == 21841
    with pytest.raises(ValueError, match="data of 1000 classes beside EVAL_22K_TO_1K, got 10"):
        build_forward(config, model, torch.device("cpu"), num_classes=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cfg", "YAML"], "required: --checkpoint"),
        (
            ["--cfg", "YAML", "--checkpoint", "no.pth"],
            "expected a file or a released name for MODEL.RESUME, got no.pth",
        ),
        (["--cfg", "YAML", "--checkpoint", "YAML"], "small.yaml"),
        (["--cfg", "YAML", "--checkpoint", "x", "--use-em"], "did you mean --use-ema?"),
        (["--cfg", "YAML", "--checkpoint", "WEIGHTS"], "expected the keys and shapes of the model"),
        (["--cfg", "YAML", "--checkpoint", "SIZE"], "got those of internimage_n (32 channels, "),
        (["--cfg", "YAML", "--checkpoint", "OTHERS"], "expected weights of 10 classes, as the"),
        (["--cfg", "YAML", "--checkpoint", "NAMES"], "got class 3 = 3, which is three there"),
        (["--cfg", "YAML", "--checkpoint", "WEIGHTS", *BAD_SIZE], "multiples of 32"),
        (["--cfg", "YAML", "--checkpoint", "x", "--throughput"], "EVAL_MODE or THROUGHPUT_MODE"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    small_yaml: Path, tmp_path: Path, capsys, arguments, message
):
    weights = tmp_path / "weights.safetensors"
    internimage.save_checkpoint(internimage.create_model("test_h", num_classes=10), weights)
    paths = {"YAML": str(small_yaml), "WEIGHTS": str(weights)}
    for name, arch, num_classes in (
        ("SIZE", "internimage_n", 10),
        ("OTHERS", "test_t", 7),
        ("NAMES", "test_t", 10),
    ):
        names = [{3: "three"}.get(label, str(label)) for label in range(num_classes)]
        path = tmp_path / f"{name}.safetensors"
        model = internimage.create_model(arch, num_classes=num_classes)
        metadata = build_metadata(get_config(small_yaml), class_names=names)
        internimage.save_checkpoint(model, path, metadata=metadata)
        paths[name] = str(path)
    assert evaluate.main([paths.get(text, text) for text in arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("evaluate.py: error: ") and printed.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed --zero-stage 3"])
def test_what_two_ranks_trained_one_rank_evaluates(
    strategy: str, small_yaml: Path, tmp_path: Path, capsys
):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    script = [ROOT / "classification" / "train.py", "--cfg", small_yaml, "--output", tmp_path]
    done = subprocess.run(
        [*torchrun, *script, "--strategy", *strategy.split()],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "small"
    summary = json.loads((folder / "summary.json").read_text())
    for typed in (["model.safetensors"], ["ckpt_epoch_2.pth", "--use-ema"]):
        found = scores(
            evaluate.main, small_yaml, capsys, "--checkpoint", folder / typed[0], *typed[1:]
        )
        for key in ("top1", "top5"):
            assert found[key] == summary[key]


# ------------------------------------------------------------------------------------------------
# throughput


def test_throughput_times_the_first_test_batch(small_yaml: Path, capsys):
    typed = ["--cfg", str(small_yaml), "--throughput", "--batch-size", "4"]
    typed += ["--opts", "TEST.WARMUP_STEPS", "1", "TEST.TIMED_STEPS", "2", "AMP_TYPE", "bfloat16"]
    assert train.main(typed) == 0
    readable, line = capsys.readouterr().out.splitlines()[-2:]
    result = json.loads(line)
    assert result["images_per_second"].keys() == {"float32", "bfloat16"}
    assert min(result["images_per_second"].values()) > 0
    assert (result["batch_size"], result["warmup_steps"], result["timed_steps"]) == (4, 1, 2)
    assert "internimage_test_t at 16 pixels, 1 x cpu, 4 images a batch" in readable


def test_throughput_makes_as_many_passes_as_it_says(make_config, monkeypatch):
    steps = ("TEST.WARMUP_STEPS", 3, "TEST.TIMED_STEPS", 5)
    config = make_config("THROUGHPUT_MODE", True, "DATA.BATCH_SIZE", 8, *steps)
    batches: list[int] = []

    def count(config, model, device, *, num_classes):
        return lambda images: batches.append(len(images))

    monkeypatch.setattr("classification.throughput.build_forward", count)
    measure(config, ONE_RANK)
    assert batches == [8] * 2 * (3 + 5)


def test_the_forward_pass_of_an_evaluation_keeps_to_the_settings(make_config):
    config = make_config("TRAIN.CHANNELS_LAST", "True", "AMP_OPT_LEVEL", "O1")
    config = get_config_with(config, AMP_TYPE="bfloat16")
    model = build_model(config, num_classes=10)
    forward = build_forward(config, model, torch.device("cpu"), num_classes=10)
    seen: list[torch.Tensor] = []
    model.patch_embed.conv1.register_forward_hook(lambda _m, x, y: seen.extend([x[0], y]))
    data = build_data(config, ONE_RANK)
    batch = next(iter(data.test_loader))
    logits = forward(data.finish_test(batch.images))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[1].dtype == torch.bfloat16
    assert logits.dtype == torch.float32 and not logits.requires_grad and not model.training


def get_config_with(config, **settings: object):
    config = config.clone()
    config.defrost()
    config.update(settings)
    return config
