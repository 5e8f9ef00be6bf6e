"""Images a second of the whole InternImage-T on a GPU, beside timm's ConvNeXt-T in the same run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import torch
from cuda_timing import Sampler, Timer
from measure import Effort, Table, interleave
from torch import Tensor, nn
from workloads import internimage_t

BATCH, SIDE, CLASSES = 128, 224, 1000
CALLS = 3  # of a sample
OURS, THEIRS = "InternImage-T", "ConvNeXt-T (timm)"


def convnext_t() -> nn.Module:
    """Timm's, with random weights.

    Raises:
        ModuleNotFoundError: If timm is not installed.
    """
    import timm

    return timm.create_model("convnext_tiny", pretrained=False, num_classes=CLASSES)


def make_forward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """Inference in bfloat16: the weights are cast once, as for deployment."""
    model = model.to(torch.bfloat16).eval()
    images = images.to(torch.bfloat16)

    @torch.no_grad()
    def run() -> Tensor:
        return model(images)

    return run


def make_step(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """A training step as recipes have it: bfloat16 autocast over float32 weights, AdamW."""
    model = model.train()
    labels = torch.arange(len(images), device=images.device) % CLASSES
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


PASSES = {"inference": make_forward, "training step": make_step}
NOTES = {
    "inference": "Weights in bfloat16, no gradients.",
    "training step": "bfloat16 autocast over float32 weights, loss, backward, AdamW.",
}


def prepare(
    name: str,
    build: Callable[[], nn.Module],
    make: Callable[[nn.Module, Tensor], Callable[[], object]],
    timer: Timer,
    images: Tensor,
    *,
    compiled: bool,
) -> tuple[Sampler, float]:
    """A sampler of seconds a batch, and the peak of memory in GiB (0 on a CPU)."""
    device = images.device
    # what the other model holds is not this one's
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    model = build().to(device, memory_format=torch.channels_last)
    if compiled:
        model = torch.compile(model, dynamic=False)
    run = make(model, images)
    start = time.perf_counter()
    if device.type == "cuda":
        run()  # compiles, and takes memory that later calls do not need
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    value = run()
    if isinstance(value, Tensor) and not torch.isfinite(value).all():
        raise RuntimeError(f"cuda_model: {name} gives numbers that are not finite")
    peak = 0.0
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        peak = (torch.cuda.max_memory_allocated(device) - before) / 2**30
    print(f"{name}: ready in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return timer.eager([run] * CALLS), peak


def table_model(
    direction: str,
    device: torch.device,
    timer: Timer,
    effort: Effort,
    *,
    quick: bool,
    batch: int = BATCH,
    side: int = SIDE,
) -> Iterator[Table]:
    """One of `PASSES`, from Python and compiled."""
    images = torch.randn(batch, 3, side, side, device=device)
    images = images.to(memory_format=torch.channels_last)
    models = {OURS: internimage_t, THEIRS: convnext_t}
    table = Table(
        f"whole models, {direction}, {side} px, batch {batch}, bfloat16, channels last",
        ["model", "how", "images a second", "times ConvNeXt-T", "peak GiB"],
        f"{NOTES[direction]} Compiled: torch.compile, default mode. Peak: all that the model takes "
        "in the second call, its weights included.",
    )
    for compiled in (True,) if quick else (False, True):
        how = "compiled" if compiled else "eager"
        samplers: dict[str, Sampler] = {}
        peaks: dict[str, float] = {}
        words: dict[str, str] = {}
        for name, build in models.items():
            try:
                samplers[name], peaks[name] = prepare(
                    f"{name}, {direction}, {how}",
                    build,
                    PASSES[direction],
                    timer,
                    images,
                    compiled=compiled,
                )
            except ModuleNotFoundError as error:
                words[name] = f"absent ({error.name})"
            except torch.OutOfMemoryError:
                words[name] = "no memory"
        seconds = interleave(samplers, effort)
        for name in models:
            if name in words:
                table.add(name, how, words[name], "-", "-")
                continue
            times = seconds[THEIRS] / seconds[name] if THEIRS in seconds else "-"
            table.add(name, how, batch / seconds[name], times, peaks[name])
        torch.compiler.reset()
    yield table
