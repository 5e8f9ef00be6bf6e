"""Every setting is read by the code that it is for.

The settings of a few runs note which of them are asked for, from the moment that they are checked.
What each does is for the tests of the part that reads it.
"""

import json
import signal
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

import internimage
from classification import train
from classification.config import flatten, get_config, get_default_config
from classification.distributed import Ranks
from classification.strategies.deepspeed_config import deepspeed_config
from classification.strategies.precision import Precision
from tests.classification.tiny_sets import write_data_set

ASKED: set[str] = set()


class Recorder(CfgNode):
    """Settings that note in ``ASKED`` which leaves are read one by one."""

    def __init__(
        self, init_dict: Any = None, key_list: list[str] | None = None, new_allowed: bool = False
    ) -> None:
        self.__dict__["prefix"] = "".join(f"{key}." for key in key_list or [])
        super().__init__(init_dict, key_list, new_allowed)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if not isinstance(value, CfgNode):
            ASKED.add(self.__dict__["prefix"] + key)
        return value


# Settings of a run -> what it has to show. The first one has photos in a folder, the default
# augmentation, an average, checkpoints within the epoch; the others reach what it does not.
RUNS: dict[str, dict[str, object]] = {
    "photos": {
        "DATA.IMG_ON_MEMORY": True,
        "TRAIN.EMA.ENABLE": True,
        "TRAIN.CLIP_GRAD": 1.0,
        "SAVE_STEPS": 1,
    },
    "digits": {
        "DATA.DATASET": "digits",
        "TRAIN.EPOCHS": 2,
        "DATA.BATCH_SIZE": 512,
        "AUG.MIXUP": 0.0,
        "AUG.CUTMIX": 0.0,
        "TRAIN.OPTIMIZER.NAME": "sgd",
        "TRAIN.LR_SCHEDULER.NAME": "step",
        "TRAIN.LR_LAYER_DECAY": True,
    },
    "squeezed": {"TEST.CROP": False, "AUG.AUTO_AUGMENT": "none"},
    "evaluated": {"EVAL_MODE": True, "MODEL.RESUME": "WEIGHTS"},
    "pretrained": {"MODEL.PRETRAINED": "WEIGHTS", "TRAIN.RAND_INIT_FT_HEAD": True},
    "timed": {"THROUGHPUT_MODE": True, "TEST.WARMUP_STEPS": 0, "TEST.TIMED_STEPS": 1},
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Runs them all; returns the keys that were asked for."""
    folder = tmp_path_factory.mktemp("settings")
    write_data_set("folder", folder / "data")
    weights = folder / "weights.safetensors"
    internimage.save_checkpoint(internimage.create_model("test_t", num_classes=2), weights)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "LOGGER: none\nAMP_TYPE: bfloat16\n"
        f"DATA: {{DATASET: folder, DATA_PATH: {folder}/data, BATCH_SIZE: 4, NUM_WORKERS: 0, "
        "IMG_SIZE: 32}\nMODEL: {ARCH: internimage_test_t}\nTRAIN: {EPOCHS: 1, WARMUP_EPOCHS: 0}\n"
    )
    ASKED.clear()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}  # main sets its own
    with pytest.MonkeyPatch.context() as patch:
        for name, settings in RUNS.items():
            texts = [str(text) for pair in settings.items() for text in pair]
            texts = [str(weights) if text == "WEIGHTS" else text for text in texts]
            config = get_config(recipe, [*texts, "OUTPUT", str(folder / name)])
            recorder = Recorder(json.loads(json.dumps(config)))
            patch.setattr(train, "parse_arguments", lambda _, config=recorder: (config, False))
            assert train.main([]) == 0, name
    for number, handler in handlers.items():
        signal.signal(number, handler)
    # DeepSpeed itself needs a process group; what it is told and how it computes does not.
    recorder = Recorder(json.loads(json.dumps(get_default_config())))
    deepspeed_config(recorder, 1, device=torch.device("cpu"))
    Precision(recorder, Ranks(0, 1, torch.device("cpu")).device)
    return set(ASKED)


KEYS = [key for key, _ in flatten(get_default_config())]


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_a_setting_is_asked_for(key: str, asked: set[str]):
    assert key in asked


def test_the_recorder_notes_what_is_read_and_nothing_else():
    before = set(ASKED)
    ASKED.clear()
    recorder = Recorder({"A": {"B": 1, "C": 2}, "D": 3}).clone()
    assert recorder.A.C == 2
    assert dict(flatten(recorder)) == {"A.B": 1, "A.C": 2, "D": 3}
    assert ASKED == {"A.C"}
    ASKED.update(before)
