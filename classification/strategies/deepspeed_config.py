"""What DeepSpeed is told: TRAIN.DEEPSPEED_CONFIG, with our settings on top."""

from typing import Any

import torch
from yacs.config import CfgNode

from classification.strategies.deepspeed_json import read_json, without_auto

ZERO_DEFAULTS = {
    # The most that ZeRO sends at once. DeepSpeed's own 5e8 values are two gigabytes, which it
    # allocates whatever the size of the model.
    "reduce_bucket_size": 50_000_000,
    "allgather_bucket_size": 50_000_000,
    # True puts another linear function in the place of PyTorch's, for the whole process.
    "memory_efficient_linear": False,
}

# Sections that would have no effect, and the settings to use.
REFUSED = {
    "optimizer": "TRAIN.OPTIMIZER",
    "scheduler": "TRAIN.LR_SCHEDULER",
    "amp": "AMP_TYPE",
    "torch_autocast": "AMP_TYPE",
}

# What the 16-bit sections may say: what the settings take from them (loss_scale 0 and 1 are
# TRAIN.GRAD_SCALER), and what is done in any case, which are the values of GradScaler.
PRECISION_SECTIONS: dict[str, dict[str, tuple[object, ...]]] = {
    "fp16": {
        "enabled": (True, False),
        "auto_cast": (True,),
        "loss_scale": (0, 1),
        "initial_scale_power": (16,),
        "loss_scale_window": (2000,),
    },
    "bf16": {"enabled": (True, False)},
}


def deepspeed_config(config: CfgNode, world_size: int, *, device: torch.device) -> dict[str, Any]:
    """Returns the dictionary that ``deepspeed.initialize`` takes.

    The settings decide on batch, clipping, precision, stage and offloading, all else the file.

    Args:
        config: The settings; DATA.BATCH_SIZE and TRAIN are read.
        world_size: The number of ranks.
        device: Where the model computes.

    Raises:
        ValueError: The file is missing or no JSON object, or asks for something that the settings
            decide.
    """
    train = config.TRAIN
    content = without_auto(read_json(train.DEEPSPEED_CONFIG)) if train.DEEPSPEED_CONFIG else {}
    images = config.DATA.BATCH_SIZE * train.ACCUMULATION_STEPS * world_size
    for section, setting in REFUSED.items():
        if section in content:
            raise ValueError(
                f"deepspeed_config: expected no section {section} in {train.DEEPSPEED_CONFIG}, "
                f"for {setting} decides, got one"
            )
    if content.get("train_batch_size", images) != images:
        raise ValueError(
            f"deepspeed_config: expected train_batch_size {images} = images a rank * accumulation "
            f"steps * ranks in {train.DEEPSPEED_CONFIG}, got {content['train_batch_size']}"
        )
    zero = ZERO_DEFAULTS | content.get("zero_optimization", {})
    zero["stage"] = train.ZERO_STAGE
    for section, target in (
        ("offload_optimizer", train.OFFLOAD_OPTIMIZER),
        ("offload_param", train.OFFLOAD_PARAM),
    ):
        given = zero.pop(section, {})
        if target != "none":
            zero[section] = {"pin_memory": device.type == "cuda", **given, "device": target}
    for section, allowed in PRECISION_SECTIONS.items():
        for key, value in content.pop(section, {}).items():
            if value not in allowed.get(key, ()):
                raise ValueError(
                    f"deepspeed_config: expected in section {section} of {train.DEEPSPEED_CONFIG} "
                    f"values of {allowed}, got {key} {value!r}"
                )
    return content | {
        "train_batch_size": images,
        "train_micro_batch_size_per_gpu": config.DATA.BATCH_SIZE,
        "gradient_accumulation_steps": train.ACCUMULATION_STEPS,
        "gradient_clipping": train.CLIP_GRAD,
        "zero_optimization": zero,
        # Ours is of torch.optim on every device, so that all strategies make the same steps.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }
