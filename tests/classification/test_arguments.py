"""Flags, launchers and JSON files become settings, each with the original's spelling and effect."""

import functools
import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from classification.config import flatten, get_default_config
from classification.launch.accelerate_launch import launcher_options
from classification.launch.arguments import FLAGS, SettingsParser, parse_arguments
from classification.strategies.deepspeed_json import json_options

# Flag as typed -> (key, value).
EFFECTS = {
    "--batch-size 8": ("DATA.BATCH_SIZE", 8),
    "--dataset imagenet22K": ("DATA.DATASET", "imagenet22k"),
    "--data-path 2026": ("DATA.DATA_PATH", "2026"),
    "--zip": ("DATA.ZIP_MODE", True),
    "--cache-mode full": ("DATA.CACHE_MODE", "full"),
    "--pretrained internimage_l_22k_192to384": ("MODEL.PRETRAINED", "internimage_l_22k_192to384"),
    "--resume a/ckpt_epoch_3.pth": ("MODEL.RESUME", "a/ckpt_epoch_3.pth"),
    "--accumulation-steps 4": ("TRAIN.ACCUMULATION_STEPS", 4),
    "--accumulation-steps 0": ("TRAIN.ACCUMULATION_STEPS", 1),
    "--use-checkpoint": ("TRAIN.USE_CHECKPOINT", True),
    "--amp-opt-level o2": ("AMP_OPT_LEVEL", "O2"),
    "--output out": ("OUTPUT", "out"),
    "--tag mine": ("TAG", "mine"),
    "--eval --resume x": ("EVAL_MODE", True),
    "--throughput": ("THROUGHPUT_MODE", True),
    "--save-ckpt-num 5": ("SAVE_CKPT_NUM", 5),
    "--strategy FSDP": ("TRAIN.STRATEGY", "fsdp"),
    "--use-zero": ("TRAIN.OPTIMIZER.USE_ZERO", True),
    "--zero-stage 3 --strategy deepspeed": ("TRAIN.ZERO_STAGE", 3),
    "--offload-optimizer cpu --strategy deepspeed": ("TRAIN.OFFLOAD_OPTIMIZER", "cpu"),
    "--offload-param cpu --strategy fsdp": ("TRAIN.OFFLOAD_PARAM", "cpu"),
    "--disable-grad-scalar": ("TRAIN.GRAD_SCALER", False),
    "--logger wandb": ("LOGGER", "wandb"),
}


@pytest.fixture
def yaml_path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("TRAIN: {EPOCHS: 30}\n")
    return path


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variables that flags may set are as before afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("ACCELERATE_", "FSDP_", "SLURM_")):
            monkeypatch.delenv(name)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def changes(arguments: str, path: Path) -> dict[str, object]:
    """The settings that a command line changes."""
    config, _ = parse_arguments(["--cfg", str(path), *arguments.split()])
    plain, _ = parse_arguments(["--cfg", str(path)])
    before = dict(flatten(plain))
    return {key: value for key, value in flatten(config) if value != before[key]}


@pytest.mark.parametrize("arguments", EFFECTS)
@pytest.mark.parametrize("spelling", ["-", "_"])
def test_a_flag_sets_its_key_in_both_spellings(arguments: str, spelling: str, yaml_path: Path):
    key, value = EFFECTS[arguments]
    words = [
        word.replace("-", spelling) if word[:2] == "--" else word for word in arguments.split()
    ]
    typed = " ".join("--" + word[2:] if word[:2] == spelling * 2 else word for word in words)
    config, _ = parse_arguments(["--cfg", str(yaml_path), *typed.split()])
    assert dict(flatten(config))[key] == value
    if arguments != "--accumulation-steps 0":  # one batch a step either way
        assert key in changes(arguments, yaml_path)


def test_the_table_above_has_every_flag():
    assert {flag.name for flag in FLAGS} == {arguments.split()[0] for arguments in EFFECTS}
    assert {flag.key for flag in FLAGS} <= dict(flatten(get_default_config())).keys()


def test_no_flag_changes_a_setting_that_it_does_not_name(yaml_path: Path):
    assert changes("", yaml_path) == {}
    assert changes("--batch-size 8 --tag mine", yaml_path) == {"DATA.BATCH_SIZE": 8, "TAG": "mine"}


def test_opts_have_the_last_word(yaml_path: Path):
    typed = "--batch-size 8 --opts DATA.BATCH_SIZE 16"
    assert changes(typed, yaml_path) == {"DATA.BATCH_SIZE": 16}


def test_overwrite_is_handed_on(yaml_path: Path):
    assert parse_arguments(["--cfg", str(yaml_path)])[1] is False
    assert parse_arguments(["--cfg", str(yaml_path), "--overwrite"])[1] is True


@pytest.mark.parametrize("flag", ["--local-rank", "--local_rank"])
def test_the_local_rank_of_an_old_launcher_counts_where_the_environment_has_none(
    flag: str, yaml_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    parse_arguments(["--cfg", str(yaml_path), f"{flag}=3"])
    assert os.environ["LOCAL_RANK"] == "3"
    parse_arguments(["--cfg", str(yaml_path), flag, "1"])
    assert os.environ["LOCAL_RANK"] == "3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--batchsize 8", "expected known flags, got --batchsize 8; did you mean --batch-size?"),
        ("--offload-parm cpu", "did you mean --offload-param?"),
        ("--batch-size", "argument --batch-size: expected one argument"),
        ("--opts SEED", "expected KEY VALUE pairs in --opts, got SEED"),
        ("--local-rank x", "expected --local-rank an integer >= 0, got x"),
        ("--zero-stage 1", "expected --strategy deepspeed beside --zero-stage, got ddp"),
        (
            "--strategy fsdp --use-zero",
            "expected TRAIN.STRATEGY ddp beside TRAIN.OPTIMIZER.USE_ZERO",
        ),
        ("--cache-mode some", "expected DATA.CACHE_MODE one of ('no', 'part', 'full'), got 'some'"),
        ("--pretrained http://127.0.0.1:9/w.pth", "by hand: fetch it with any browser"),
        ("--resume http://127.0.0.1:9/", "expected the address of a file"),
    ],
)
def test_a_mistake_is_named(arguments: str, message: str, yaml_path: Path, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises((ValueError, ConnectionError)) as caught:
        parse_arguments(["--cfg", str(yaml_path), *arguments.split()])
    assert message in str(caught.value)


def test_a_checkpoint_is_downloaded_once(yaml_path: Path, monkeypatch, tmp_path):
    served = tmp_path / "served"
    (served / "b").mkdir(parents=True)
    (served / "w eights.pth").write_bytes(b"weights")
    (served / "b" / "w eights.pth").write_bytes(b"others of the same name")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        typed = ["--cfg", str(yaml_path), "--pretrained"]
        host = f"http://127.0.0.1:{server.server_port}"
        typed.append(f"{host}/w%20eights.pth?download=true")
        path = Path(parse_arguments(typed)[0].MODEL.PRETRAINED)
        (served / "w eights.pth").unlink()
        assert parse_arguments(typed)[0].MODEL.PRETRAINED == str(path)
        typed[-1] = f"{host}/b/w%20eights.pth"
        other = Path(parse_arguments(typed)[0].MODEL.PRETRAINED)
        server.shutdown()
    assert path.read_bytes() == b"weights"
    assert other.read_bytes() == b"others of the same name"
    assert path.name == other.name == "w eights.pth"


def test_a_strategy_that_shares_states_anyway_takes_a_recipe_with_use_zero(
    yaml_path: Path, monkeypatch
):
    yaml_path.write_text("TRAIN: {OPTIMIZER: {USE_ZERO: True}}\n")
    assert changes("--strategy DDP", yaml_path) == {}
    assert changes("--strategy fsdp", yaml_path) == {
        "TRAIN.STRATEGY": "fsdp",
        "TRAIN.OPTIMIZER.USE_ZERO": False,
    }
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    config, _ = parse_arguments(["--cfg", str(yaml_path)])
    assert config.TRAIN.OPTIMIZER.USE_ZERO is False


# ------------------------------------------------------------------------------------------------
# accelerate's launcher and DeepSpeed's JSON

DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, {}),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, {"AMP_OPT_LEVEL": "O0"}),
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "NO"},
            {"AMP_OPT_LEVEL": "O1", "AMP_TYPE": "bfloat16"},
        ),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, {"TRAIN.COMPILE": "True"}),
        (
            {
                **DEEPSPEED,
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
                "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2",
                "ACCELERATE_GRADIENT_CLIPPING": "1.5",
                "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu",
                "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
                "ACCELERATE_MIXED_PRECISION": "fp16",
            },
            {
                "TRAIN.STRATEGY": "deepspeed",
                "TRAIN.ZERO_STAGE": "3",
                "TRAIN.ACCUMULATION_STEPS": "2",
                "TRAIN.CLIP_GRAD": "1.5",
                "TRAIN.OFFLOAD_OPTIMIZER": "cpu",
                "AMP_OPT_LEVEL": "O1",
                "AMP_TYPE": "float16",
            },
        ),
        ({**DEEPSPEED, "ACCELERATE_GRADIENT_CLIPPING": "auto"}, {"TRAIN.STRATEGY": "deepspeed"}),
        (
            {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_OFFLOAD_PARAMS": "true",
                "FSDP_ACTIVATION_CHECKPOINTING": "true",
            },
            {
                "TRAIN.STRATEGY": "fsdp",
                "TRAIN.OFFLOAD_PARAM": "cpu",
                "TRAIN.USE_CHECKPOINT": "True",
            },
        ),
    ],
)
def test_the_launchers_variables_become_options(environment, options):
    assert launcher_options(environment) == options


# What the launcher sets by itself under --use_fsdp and --dynamo_backend inductor.
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "1",
    "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_MIN_NUM_PARAMS": "100000000",
    "FSDP_FORWARD_PREFETCH": "false",
    "FSDP_USE_ORIG_PARAMS": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "false",
}
DYNAMO = {
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "False",
}


def test_the_launchers_own_defaults_are_what_is_done():
    options = {"TRAIN.STRATEGY": "fsdp", "TRAIN.COMPILE": "True"}
    assert launcher_options(FSDP | DYNAMO) == options
    # without fsdp and compilation nobody looks at how they would be done
    idle = {"FSDP_SHARDING_STRATEGY": "NO_SHARD", "ACCELERATE_DYNAMO_MODE": "max-autotune"}
    assert launcher_options(idle) == {}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (FSDP | {"FSDP_SHARDING_STRATEGY": "NO_SHARD"}, "FSDP_SHARDING_STRATEGY one of .*NO_SHARD"),
        (FSDP | {"FSDP_RESHARD_AFTER_FORWARD": "false"}, "FSDP_RESHARD_AFTER_FORWARD one of"),
        (FSDP | {"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "FSDP_AUTO_WRAP_POLICY one of"),
        (FSDP | {"FSDP_IGNORED_MODULES": "head"}, "expected FSDP_IGNORED_MODULES unset, got head"),
        (DYNAMO | {"ACCELERATE_DYNAMO_MODE": "max-autotune"}, "ACCELERATE_DYNAMO_MODE one of"),
        (DYNAMO | {"ACCELERATE_DYNAMO_USE_FULLGRAPH": "True"}, "DYNAMO_USE_FULLGRAPH one of"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "expected ACCELERATE_MIXED_PRECISION one of"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "ACCELERATE_USE_MEGATRON_LM false, got true"),
        ({"ACCELERATE_DYNAMO_BACKEND": "EAGER"}, "expected ACCELERATE_DYNAMO_BACKEND one of"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "no.json"}, "existing JSON file"),
    ],
)
def test_what_the_launcher_asks_in_vain_is_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        launcher_options(environment)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ({}, {}),
        ({"gradient_clipping": "auto", "fp16": {"enabled": "auto"}}, {}),
        ({"fp16": {"enabled": False}}, {"AMP_OPT_LEVEL": "O0"}),
        ({"bf16": {"enabled": True}}, {"AMP_OPT_LEVEL": "O1", "AMP_TYPE": "bfloat16"}),
        (
            {"fp16": {"enabled": True, "loss_scale": 1}, "train_micro_batch_size_per_gpu": 2},
            {
                "DATA.BATCH_SIZE": "2",
                "AMP_OPT_LEVEL": "O1",
                "AMP_TYPE": "float16",
                "TRAIN.GRAD_SCALER": "False",
            },
        ),
    ],
)
def test_a_json_file_decides_what_it_says_and_nothing_else(content, options, tmp_path: Path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(content))
    assert json_options(str(path)) == options


@pytest.mark.parametrize("text", ["[1]", "{", ""])
def test_a_json_file_without_an_object_is_named(text: str, tmp_path: Path):
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"expected .*JSON.*ds\.json"):
        json_options(str(path))


def test_flags_win_over_the_launcher_and_the_launcher_over_the_json_file(
    yaml_path: Path, tmp_path: Path, monkeypatch, capsys
):
    yaml_path.write_text("TRAIN: {CLIP_GRAD: 1.0, ACCUMULATION_STEPS: 9, ZERO_STAGE: 1}\n")
    path = tmp_path / "ds.json"
    content = {"zero_optimization": {"stage": 3}, "gradient_accumulation_steps": 4}
    path.write_text(json.dumps(content | {"gradient_clipping": 2.0}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "3.0")
    config, _ = parse_arguments(["--cfg", str(yaml_path), "--accumulation-steps", "2"])
    assert (config.TRAIN.STRATEGY, config.TRAIN.ZERO_STAGE) == ("deepspeed", 3)
    assert (config.TRAIN.CLIP_GRAD, config.TRAIN.ACCUMULATION_STEPS) == (3.0, 2)
    assert "accelerate's launcher says TRAIN.DEEPSPEED_CONFIG" in capsys.readouterr().out
    # an offloading that only stage 3 has, which only the file says
    config, _ = parse_arguments(["--cfg", str(yaml_path), "--offload-param", "cpu"])
    assert config.TRAIN.OFFLOAD_PARAM == "cpu"


def test_a_run_that_accelerate_sends_to_the_cpu_sees_no_gpu(yaml_path: Path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    parse_arguments(["--cfg", str(yaml_path)])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("typed", ["--model_name", "--model-name"])
def test_a_script_may_have_flags_of_its_own(typed: str, yaml_path: Path):
    parser = SettingsParser("other.py", "Does something.")
    parser.add_argument("--model_name")
    config, args = parser.parse_settings(["--cfg", str(yaml_path), "--output", "x", f"{typed}=a_b"])
    assert (config.OUTPUT, args.model_name) == ("x", "a_b")
