"""Speed of the forward pass; no script: ``train.py --throughput`` measures it."""

import json
import time
from typing import Any

import torch
from yacs.config import CfgNode

from classification.data import build_data
from classification.distributed import Ranks, sum_over_ranks
from classification.evaluation import to_inputs
from classification.inference import build_forward
from classification.models import build_model


def measure(config: CfgNode, ranks: Ranks) -> dict[str, Any]:
    """Times forward passes of the first test batch, in float32 and in AMP_TYPE, and prints them.

    TEST.WARMUP_STEPS passes are for caches and clocks, TEST.TIMED_STEPS are timed. The weights are
    random: they make no difference.

    Args:
        config: The settings.
        ranks: This process among all; they measure at the same time.

    Returns:
        What is printed as JSON: ``images_per_second`` of all ranks by precision, and how it was
        measured.

    Raises:
        ValueError: There is no test image.
    """
    data = build_data(config, ranks)
    num_classes = len(data.class_names)
    model = build_model(config, num_classes=num_classes)
    batch = next(iter(data.test_loader), None)
    if batch is None or not len(batch.labels):
        raise ValueError("measure: expected test images on every rank, got none")
    images, *meta = to_inputs(batch, data.finish_test, ranks.device)
    inputs = (images, *meta) if meta else images
    speeds = {}
    for name, level in (("float32", "O0"), (config.AMP_TYPE, "O1")):
        config = config.clone()
        config.defrost()
        config.AMP_OPT_LEVEL = level
        forward = build_forward(config, model, ranks.device, num_classes=num_classes)
        for _ in range(config.TEST.WARMUP_STEPS):
            forward(inputs)
        _wait_for(ranks.device)
        started = time.perf_counter()
        for _ in range(config.TEST.TIMED_STEPS):
            forward(inputs)
        _wait_for(ranks.device)
        seconds = (time.perf_counter() - started) / config.TEST.TIMED_STEPS
        speed = torch.tensor(len(images) / seconds, dtype=torch.float64, device=ranks.device)
        speeds[name] = round(sum_over_ranks(speed).item(), 1)
    result = {
        "model": config.MODEL.ARCH,
        "image_size": config.DATA.IMG_SIZE,
        "batch_size": len(images),
        "ranks": ranks.world_size,
        "device": ranks.device.type,
        "warmup_steps": config.TEST.WARMUP_STEPS,
        "timed_steps": config.TEST.TIMED_STEPS,
        "images_per_second": speeds,
    }
    if ranks.is_main:
        said = ", ".join(f"{speed:,.1f} in {name}" for name, speed in speeds.items())
        print(
            f"{config.MODEL.ARCH} at {config.DATA.IMG_SIZE} pixels, {ranks.world_size} x "
            f"{ranks.device.type}, {len(images)} images a batch: images a second {said}"
        )
        print(json.dumps(result))
    return result


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
