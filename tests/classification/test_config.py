"""Settings: defaults, YAML files with inheritance, overrides, and mistakes as one clear line."""

import re
import warnings
from pathlib import Path

import pytest

from classification.config import (
    check_config,
    flatten,
    get_config,
    get_default_config,
    nearest_hint,
)
from classification.rules import RULES, check_value

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / "classification" / "configs").rglob("*.yaml")
    if path.parent.name != "accelerate"  # settings of its launcher
)


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_overrides_defaults_and_options_override_the_file(tmp_path: Path):
    path = write(tmp_path, "TRAIN: {EPOCHS: 70, BASE_LR: 1.0e-3}\nSEED: 5\n")
    config = get_config(path, ["SEED", "9", "TRAIN.EMA.ENABLE", "True"])
    assert (config.TRAIN.EPOCHS, config.TRAIN.BASE_LR, config.SEED) == (70, 1e-3, 9)
    assert config.TRAIN.EMA.ENABLE is True
    assert config.TRAIN.WEIGHT_DECAY == get_default_config().TRAIN.WEIGHT_DECAY


def test_the_run_is_named_after_its_file(tmp_path: Path):
    assert get_config(write(tmp_path, "", "my_run.yaml")).MODEL.NAME == "my_run"


def test_a_file_inherits_from_its_base_files_in_their_order(tmp_path: Path):
    (tmp_path / "bases").mkdir()
    write(tmp_path / "bases", "BASE: [grandparent.yaml]\nTRAIN: {EPOCHS: 30}\n", "parent.yaml")
    write(tmp_path / "bases", "TRAIN: {EPOCHS: 300, MIN_LR: 1.0e-7}\nSEED: 1\n", "grandparent.yaml")
    write(tmp_path / "bases", "SEED: 2\n", "other.yaml")
    config = get_config(
        write(tmp_path, "BASE: [bases/parent.yaml, bases/other.yaml]\nPRINT_FREQ: 3\n")
    )
    assert (config.TRAIN.EPOCHS, config.TRAIN.MIN_LR, config.SEED) == (30, 1e-7, 2)
    assert config.PRINT_FREQ == 3


def test_numbers_may_be_written_in_any_usual_way(tmp_path: Path):
    # YAML 1.1 reads 5e-4 as text and 1 as an integer.
    path = write(
        tmp_path, "TRAIN: {BASE_LR: 5e-4, CLIP_GRAD: 1, OPTIMIZER: {BETAS: [0.9, 0.95]}}\n"
    )
    config = get_config(path, ["TRAIN.MIN_LR", "1e-6"])
    assert config.TRAIN.BASE_LR == 5e-4
    assert config.TRAIN.CLIP_GRAD == 1.0
    assert config.TRAIN.OPTIMIZER.BETAS == (0.9, 0.95)
    assert config.TRAIN.MIN_LR == 1e-6


def test_a_text_among_the_options_is_taken_as_it_is(tmp_path: Path):
    config = get_config(write(tmp_path, ""), ["OUTPUT", "2026", "MODEL.NAME", "no"])
    assert (config.OUTPUT, config.MODEL.NAME) == ("2026", "no")


def test_the_originals_files_are_read_as_they_are(tmp_path: Path):
    """Its spellings, its empty BASE, its 0 for one batch a step, None as a text."""
    path = write(
        tmp_path,
        "BASE: ['']\nAMP_OPT_LEVEL: o1\nDATA: {DATASET: imagenet22K}\n"
        "MODEL: {TYPE: INTERN_IMAGE, INTERN_IMAGE: {CORE_OP: dcnv3, LAYER_SCALE: None}}\n"
        "TRAIN: {BASE_LR: 2e-05, WARMUP_LR: .0, ACCUMULATION_STEPS: 0}\n",
    )
    config = get_config(path)
    assert (config.AMP_OPT_LEVEL, config.DATA.DATASET) == ("O1", "imagenet22k")
    assert (config.MODEL.TYPE, config.MODEL.INTERN_IMAGE.CORE_OP) == ("intern_image", "DCNv3")
    assert config.MODEL.INTERN_IMAGE.LAYER_SCALE is None
    assert (config.TRAIN.BASE_LR, config.TRAIN.WARMUP_LR) == (2e-5, 0.0)
    assert config.TRAIN.ACCUMULATION_STEPS == 1


def test_settings_cannot_change_after_they_are_read(tmp_path: Path):
    config = get_config(write(tmp_path, ""))
    with pytest.raises(AttributeError):
        config.SEED = 3


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("TRAIN: {EPOCH: 3}", [], r"known key in .*run\.yaml, got TRAIN\.EPOCH; did you mean"),
        ("TRIAN: {EPOCHS: 3}", [], r"got TRIAN\.EPOCHS; did you mean TRAIN\.EPOCHS\?"),
        ("", ["TRAIN.BASE_RL", "1"], r"--opts, got TRAIN\.BASE_RL; did you mean TRAIN\.BASE_LR\?"),
        ("", ["seed", "1"], r"got seed; did you mean SEED\?"),
        ("", ["SEED"], "expected KEY VALUE pairs, got SEED"),
        ("TRAIN: 3", [], "expected keys under TRAIN in .*, got 3"),
        ("TRAIN: {EPOCHS: many}", [], "expected TRAIN.EPOCHS of type int in .*, got 'many'"),
        ("TRAIN: {EPOCHS: 2.5}", [], "expected TRAIN.EPOCHS of type int in .*, got 2.5"),
        ("TRAIN: {EPOCHS: True}", [], "expected TRAIN.EPOCHS of type int in .*, got True"),
        ("TRAIN: {EPOCHS: null}", [], "expected a value for TRAIN.EPOCHS, got None"),
        ("TRAIN: {EMA: {ENABLE: 1}}", [], "expected TRAIN.EMA.ENABLE of type bool in .*, got 1"),
        ("TRAIN: {BASE_LR: .nan}", [], "expected TRAIN.BASE_LR finite, got nan"),
        ("DATA: {BATCH_SIZE: 0}", [], "expected DATA.BATCH_SIZE > 0, got 0"),
        ("AUG: {MEAN: [0.5]}", [], r"expected AUG.MEAN three finite numbers, got \(0.5,\)"),
        ("AUG: {STD: [a, b, c]}", [], "expected AUG.STD three numbers > 0, got"),
        ("TRAIN: {EPOCHS: 3}", [], "expected TRAIN.WARMUP_EPOCHS <= TRAIN.EPOCHS = 3, got 20"),
        ("TRAIN: {LR_SCHEDULER: {NAME: cos}}", [], "expected TRAIN.LR_SCHEDULER.NAME one of"),
        ("MODEL: {NAME: ../up}", [], "expected MODEL.NAME a folder's name, got '../up'"),
        ("MODEL: {NAME: ..}", [], r"expected MODEL.NAME a folder's name, got '\.\.'"),
        ("MODEL: {NAME: .}", [], r"expected MODEL.NAME a folder's name, got '\.'"),
        ("MODEL: {INTERN_IMAGE: {CHANNELS: abc}}", [], "CHANNELS an even integer > 0, got 'abc'"),
        ("MODEL: {INTERN_IMAGE: {CHANNELS: True}}", [], "an even integer > 0, got True"),
        ("MODEL: {INTERN_IMAGE: {DEPTHS: 3}}", [], "DEPTHS a list of integers > 0, got 3"),
        ("MODEL: {INTERN_IMAGE: {GROUPS: [1, 2.5]}}", [], r"integers > 0, got \(1, 2.5\)"),
        ("MODEL: {INTERN_IMAGE: {POST_NORM: 1}}", [], "POST_NORM True or False, got 1"),
        ("", ["MODEL.INTERN_IMAGE.MLP_RATIO", "wide"], "MLP_RATIO > 0, got 'wide'"),
        ("", ["MODEL.INTERN_IMAGE.DW_KERNEL_SIZE", "4"], "an odd integer > 0, got 4"),
        ("", ["TRAIN.OPTIMIZER.DCN_LR_MUL", "abc"], "DCN_LR_MUL > 0, got 'abc'"),
        ("", ["TRAIN.OPTIMIZER.FREEZE_BACKBONE", "0"], "different integers >= 0, got 0"),
        ("AUG: {CUTMIX_MINMAX: [0.2]}", [], r"two numbers in \[0, 1\], .*, got \(0.2,\)"),
        ("AUG: {CUTMIX_MINMAX: abc}", [], "CUTMIX_MINMAX two numbers .*, got 'abc'"),
        ("", ["TRAIN.OPTIMIZER.MOMENTUM", "0.0"], r"MOMENTUM in \(0, 1\), got 0.0"),
        ("LOCAL_RANK: 0", [], r"expected no LOCAL_RANK in .*run\.yaml: the launcher's environment"),
        (
            "TRAIN: {START_EPOCH: 300}",
            [],
            "expected TRAIN.START_EPOCH < TRAIN.EPOCHS = 300, got 300",
        ),
        (
            "TRAIN: {ZERO_STAGE: 2}",
            [],
            "TRAIN.STRATEGY deepspeed beside TRAIN.ZERO_STAGE = 2, got ddp",
        ),
        (
            "TRAIN: {DEEPSPEED_CONFIG: x.json, STRATEGY: fsdp}",
            [],
            "TRAIN.STRATEGY deepspeed beside TRAIN.DEEPSPEED_CONFIG = x.json, got fsdp",
        ),
        (
            "TRAIN: {OFFLOAD_OPTIMIZER: cpu, STRATEGY: fsdp}",
            [],
            "TRAIN.STRATEGY deepspeed beside TRAIN.OFFLOAD_OPTIMIZER = cpu, got fsdp",
        ),
        (
            "TRAIN: {OFFLOAD_PARAM: cpu, STRATEGY: deepspeed, ZERO_STAGE: 2}",
            [],
            "beside TRAIN.OFFLOAD_PARAM = cpu, got deepspeed with TRAIN.ZERO_STAGE 2",
        ),
        (
            "TRAIN: {STRATEGY: fsdp, OPTIMIZER: {USE_ZERO: True}}",
            [],
            "TRAIN.STRATEGY ddp beside TRAIN.OPTIMIZER.USE_ZERO = True, got fsdp",
        ),
        (
            "DATA: {ZIP_MODE: True, STORAGE: shards}",
            [],
            "DATA.STORAGE zip or auto beside DATA.ZIP_MODE = True, got shards",
        ),
        (
            "AUG: {RANDOM_RESIZED_CROP: True}",
            [],
            "TEST.CROP = False beside AUG.RANDOM_RESIZED_CROP = True, got True",
        ),
        ("EVAL_MODE: True", [], "MODEL.RESUME or MODEL.PRETRAINED beside EVAL_MODE = True"),
        (
            "MODEL: {RESUME: x}",
            ["EVAL_MODE", "True", "THROUGHPUT_MODE", "True"],
            "expected EVAL_MODE or THROUGHPUT_MODE, got both",
        ),
        ("EVAL_22K_TO_1K: True", [], "EVAL_MODE = True beside EVAL_22K_TO_1K = True, got False"),
        (
            "EVAL_22K_TO_1K: True",
            ["EVAL_MODE", "True", "MODEL.RESUME", "x", "MODEL.NUM_CLASSES", "1000"],
            "MODEL.NUM_CLASSES = 21841 beside EVAL_22K_TO_1K = True, got 1000",
        ),
        ("SEED: 9223372036854775808", [], r"expected SEED in \[0, 2\*\*63\), got"),
        ("BASE: 5", [], r"expected BASE a file or a list of files in .*run\.yaml, got 5"),
        ("BASE: null", [], r"expected BASE a file or a list of files in .*run\.yaml, got None"),
        ("BASE: [1]", [], r"expected BASE a file or a list of files in .*run\.yaml, got \[1\]"),
        ("BASE: [missing.yaml]", [], r"existing YAML file, got .*missing\.yaml \(named by .*run"),
        ("BASE: [run.yaml]", [], "files without a circle"),
        ("- a list", [], "expected a mapping in .*, got list"),
        ("a: [", [], r"expected valid YAML in .*run.yaml, got .*, line 1, column 5$"),
        (
            "A: 1\n B: 2",
            [],
            r"run.yaml, got mapping values are not allowed here, line 2, column 3$",
        ),
        ("TRAIN:\n  EPOCHS: 2\n  EPOCHS: 1", [], "got the key EPOCHS for the second time, line 3"),
        ("DATA: {IMG_SIZE: 7}", [], "expected DATA.IMG_SIZE >= 8 pixels, got 7"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    tmp_path: Path, text: str, options: list[str], message: str
):
    with pytest.raises(ValueError, match=message) as caught:
        get_config(write(tmp_path, text), options)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected an existing YAML file, got .*nowhere\.yaml"):
        get_config(tmp_path / "nowhere.yaml")


def test_every_rule_belongs_to_a_key_and_holds_for_its_default():
    defaults = dict(flatten(get_default_config()))
    assert RULES.keys() <= defaults.keys()
    check_config(get_default_config())


@pytest.mark.parametrize(
    "key", [key for key, value in flatten(get_default_config()) if value is None]
)
def test_every_setting_without_a_default_value_has_a_rule(key: str):
    for value in ("abc", -1, (-1, "a")):
        with pytest.raises(ValueError, match=f"config: expected {key} "):
            check_value(key, value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_is_valid_and_has_no_idle_setting(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_config(path).MODEL.NAME == path.stem


# Setting that was chosen -> what it has no effect beside, and a setting under which it has one.
IDLE = [
    ("TRAIN.LR_LAYER_DECAY_RATIO 0.5", "TRAIN.LR_LAYER_DECAY = False", "TRAIN.LR_LAYER_DECAY True"),
    ("TRAIN.EMA.DECAY 0.5", "TRAIN.EMA.ENABLE = False", "TRAIN.EMA.ENABLE True"),
    ("AMP_OPT_LEVEL O0 AMP_TYPE bfloat16", "AMP_OPT_LEVEL = O0", "AMP_OPT_LEVEL O2"),
    ("AMP_OPT_LEVEL O0 AMP_TYPE bfloat16", "AMP_OPT_LEVEL = O0", "THROUGHPUT_MODE True"),
    ("AMP_OPT_LEVEL O0 TRAIN.GRAD_SCALER False", "AMP_OPT_LEVEL = O0", "AMP_OPT_LEVEL O1"),
    ("AMP_TYPE bfloat16 TRAIN.GRAD_SCALER False", "AMP_TYPE = bfloat16", "AMP_TYPE float16"),
    (
        "TRAIN.OPTIMIZER.MOMENTUM 0.5",
        "TRAIN.OPTIMIZER.NAME = adamw",
        "TRAIN.OPTIMIZER.NAME sgd",
    ),
    (
        "TRAIN.OPTIMIZER.NAME sgd TRAIN.OPTIMIZER.EPS 0.1",
        "TRAIN.OPTIMIZER.NAME = sgd",
        "TRAIN.OPTIMIZER.NAME adamw",
    ),
    (
        "TRAIN.LR_SCHEDULER.DECAY_RATE 0.5",
        "TRAIN.LR_SCHEDULER.NAME = cosine",
        "TRAIN.LR_SCHEDULER.NAME step",
    ),
    (
        "TRAIN.LR_SCHEDULER.NAME linear TRAIN.MIN_LR 0.5",
        "TRAIN.LR_SCHEDULER.NAME = linear",
        "TRAIN.LR_SCHEDULER.NAME cosine",
    ),
    (
        "AUG.MIXUP 0 AUG.CUTMIX 0 AUG.MIXUP_PROB 0.5",
        "AUG.MIXUP = AUG.CUTMIX = 0",
        "AUG.CUTMIX_MINMAX [0.2,0.8]",
    ),
    (
        "AUG.CUTMIX 0 AUG.MIXUP_SWITCH_PROB 0.3",
        "AUG.MIXUP = 0 or AUG.CUTMIX = 0",
        "AUG.CUTMIX 1",
    ),
    ("AUG.REPROB 0 AUG.REMODE const", "AUG.REPROB = 0", "AUG.REPROB 0.1"),
    ("DATA.DATASET digits DATA.STORAGE zip", "DATA.DATASET = digits", "DATA.DATASET folder"),
    (
        "MODEL.DROP_PATH_RATE 0 MODEL.DROP_PATH_TYPE uniform",
        "MODEL.DROP_PATH_RATE = 0",
        "MODEL.DROP_PATH_RATE 0.1",
    ),
    ("TEST.TIMED_STEPS 3", "THROUGHPUT_MODE = False", "THROUGHPUT_MODE True"),
]


@pytest.mark.parametrize(("chosen", "beside", "switch"), IDLE)
def test_a_setting_without_effect_is_a_warning(
    tmp_path: Path, chosen: str, beside: str, switch: str
):
    path = write(tmp_path, "")
    key, value = chosen.split()[-2:]
    expected = rf"config: {key} = {value}(\.0)? has no effect beside {re.escape(beside)}"
    with pytest.warns(UserWarning, match=expected) as caught:
        get_config(path, chosen.split())
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_config(path, [*chosen.split(), *switch.split()])


def test_there_are_shipped_files():
    assert CONFIGS


def test_the_hint_is_silent_when_nothing_is_near():
    assert nearest_hint("--ouput", ["--output", "--cfg"]) == "; did you mean --output?"
    assert nearest_hint("--xyz", ["--output", "--cfg"]) == ""
