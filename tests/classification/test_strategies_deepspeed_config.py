"""What DeepSpeed is told: the settings, and a file for the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from classification.config import get_default_config
from classification.strategies.deepspeed_config import deepspeed_config

CONFIGS = Path(__file__).resolve().parents[2] / "classification" / "configs"


def told(path: Path, content: object, *options: object) -> dict[str, Any]:
    path.write_text(json.dumps(content), encoding="utf-8")
    config = get_default_config()
    config.merge_from_list(
        ["DATA.BATCH_SIZE", 8, "TRAIN.ACCUMULATION_STEPS", 2, "TRAIN.DEEPSPEED_CONFIG", str(path)]
    )
    config.merge_from_list(list(options))
    return deepspeed_config(config, 4, device=torch.device("cpu"))


def test_the_settings_decide_and_the_file_has_the_rest(tmp_path: Path):
    content = {
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": 2, "overlap_comm": True, "reduce_bucket_size": 1000},
        "wall_clock_breakdown": True,
    }
    result = told(tmp_path / "a.json", content, "TRAIN.ZERO_STAGE", 3, "TRAIN.CLIP_GRAD", 2.0)
    assert result["train_batch_size"] == 8 * 2 * 4
    assert result["train_micro_batch_size_per_gpu"] == 8
    assert result["gradient_accumulation_steps"] == 2
    assert result["gradient_clipping"] == 2.0
    assert result["wall_clock_breakdown"] is True
    assert "bf16" not in result
    zero = result["zero_optimization"]
    assert (zero["stage"], zero["overlap_comm"], zero["reduce_bucket_size"]) == (3, True, 1000)
    assert "offload_param" not in zero


def test_offloading_takes_the_details_of_the_file_and_the_target_of_the_settings(tmp_path: Path):
    content = {"zero_optimization": {"offload_optimizer": {"device": "nvme", "ratio": 0.5}}}
    result = told(tmp_path / "a.json", content, "TRAIN.OFFLOAD_OPTIMIZER", "cpu")
    zero = result["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "cpu", "ratio": 0.5, "pin_memory": False}
    assert "offload_optimizer" not in told(tmp_path / "a.json", content)["zero_optimization"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train_batch_size": 100}, "expected train_batch_size 64 .*got 100"),
        ({"optimizer": {"type": "Adam"}}, "no section optimizer .*TRAIN.OPTIMIZER decides"),
        ({"scheduler": {"type": "OneCycle"}}, "no section scheduler .*LR_SCHEDULER decides"),
        ({"torch_autocast": {"enabled": True}}, "no section torch_autocast .*AMP_TYPE decides"),
        ({"fp16": {"initial_scale_power": 20}}, "in section fp16 .* got initial_scale_power 20"),
        ({"bf16": {"immediate_grad_update": True}}, "section bf16 .* got immediate_grad_update"),
        ([1], r"expected a JSON object in .*a.json, got \[1\]"),
    ],
)
def test_what_the_file_cannot_decide_is_refused(tmp_path: Path, content: object, message: str):
    with pytest.raises(ValueError, match=message):
        told(tmp_path / "a.json", content)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"missing.json"):
        told(tmp_path / "a.json", {}, "TRAIN.DEEPSPEED_CONFIG", str(tmp_path / "missing.json"))


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.json")), ids=lambda path: path.stem)
def test_the_files_that_come_along_are_taken(path: Path):
    config = get_default_config()
    config.TRAIN.DEEPSPEED_CONFIG = str(path)
    assert deepspeed_config(config, 1, device=torch.device("cpu"))["train_batch_size"] == 128
