r"""Time and memory of the models of driving, and what spatial cross-attention saves.

    .venv/bin/python tools/make_driving_scenes.py --out data/driving_scenes
    .venv/bin/python autonomous_driving/benchmarks/bench_driving.py
    .venv/bin/python autonomous_driving/benchmarks/bench_driving.py --device cuda:0 --steps 20

Tiny models are trained for a few steps on the synthetic scenes, full-size ones see one frame of
random images from the cameras of a car, each in a process of its own. Times are medians, on one
thread of a CPU those of the process, so that other programs do not count. The view's share is that
of the encoder, or of the inverse perspective mapping, in the same steps, backward included. The
peak is what the process takes beyond its imports, on a GPU PyTorch's count.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from autonomous_driving.benchmarks.attention_bytes import attention_bytes, matrices_of
from internimage.integrations.openmmlab.driving.sample import DrivingSample
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.runner import NamingRunner
from tools.benchmarks.turns import processor

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TINY = (
    "occupancy_prediction/bevformer_intern_occ_tiny",
    "openlane-v2/internimage_tiny",
    "Online-HD-Map-Construction/vectormapnet_intern_tiny",
)
FULL = (
    "occupancy_prediction/bevformer_intern-s_occ",
    "openlane-v2/internimage-s",
    "Online-HD-Map-Construction/vectormapnet_intern",
)
IMAGES = {FULL[0]: (6, 900, 1600), FULL[1]: (7, 1550, 2048), FULL[2]: (7, 256, 455)}
"""Cameras, height and width that the full-size models are given."""

MIB = 2**20


class Clock:
    """Seconds that a part of a model takes in a step, forward and backward.

    Args:
        part: Takes lists of feature maps and returns one tensor.
        device: Where it is.
    """

    def __init__(self, part: torch.nn.Module, device: str) -> None:
        self.total = 0.0
        self._device = device
        self._began = self._forward = self._backward_began = 0.0
        part.register_forward_pre_hook(self._before)
        part.register_forward_hook(self._after)

    def _before(self, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        features, *others = args
        # Backward runs the other way: it enters the part at its output and leaves it at its inputs.
        marked = [_Mark.apply(level, self._end_backward) for level in features]
        self._began = _now(self._device)
        return (marked, *others)

    def _after(self, _: Any, __: tuple[Any, ...], bev: Tensor) -> Tensor:
        self.total += _now(self._device) - self._began
        return _Mark.apply(bev, self._begin_backward)

    def _begin_backward(self) -> None:
        self._backward_began = _now(self._device)

    def _end_backward(self) -> None:
        # Once for each level; the last one is the end.
        now = _now(self._device)
        self.total += now - self._backward_began
        self._backward_began = now


class _Mark(torch.autograd.Function):
    """Passes a tensor on, and calls a function when its gradient passes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, call: Any) -> Tensor:
        ctx.call = call
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.call()
        return gradient, None


def _now(device: str) -> float:
    if device.startswith("cuda"):
        # Kernels still run when Python is already elsewhere.
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def measure_training(name: str, data: str, device: str, steps: int) -> dict[str, Any]:
    """Returns what a step of training of a tiny model takes."""
    # `before` stands ahead of the model: its weights are part of the peak.
    config, before = _read(name, data), _peak()
    loader = NamingRunner.build_dataloader(config.train_dataloader, seed=0)
    model = MODELS.build(config.model).to(device).train()
    # Any rate: nothing is learnt in a few steps, but a step of AdamW takes its time and memory.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    clock = Clock(model.view, device)
    seconds, shares, images = [], [], 0
    batches = iter(loader)
    for step in range(steps + 1):
        batch = next(batches)
        clock.total, began = 0.0, _now(device)
        losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
        loss, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = _now(device) - began
        images = sum(int(np.prod(frames.shape[:2])) for frames in batch["inputs"])
        if step:  # the first one warms up
            seconds.append(total)
            shares.append(clock.total / total)
    return _result(seconds, shares, images, _used(device, before))


def measure_forward(name: str, device: str, steps: int) -> dict[str, Any]:
    """Returns what the prediction of a full-size model for a frame of random images takes."""
    config, before = _read(name, None), _peak()
    model = MODELS.build(config.model).to(device).eval()
    num_cameras, height, width = IMAGES[name]
    clock = Clock(model.view, device)
    seconds, shares = [], []
    # Without a step to warm up: a frame of the full size may take minutes on a CPU.
    for _ in range(steps):
        batch = random_frame(num_cameras, (height, width))
        clock.total, began = 0.0, _now(device)
        with torch.inference_mode():
            model.test_step(batch)
        total = _now(device) - began
        seconds.append(total)
        shares.append(clock.total / total)
    return _result(seconds, shares, num_cameras, _used(device, before))


def random_frame(num_cameras: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Returns a batch of one frame: random images from the cameras of a car.

    Args:
        num_cameras: N.
        shape: height and width of the images.
    """
    pixels = torch.randint(0, 256, (1, num_cameras, 3, *shape), dtype=torch.uint8)
    sample = DrivingSample(
        metainfo={
            "token": "frame",
            "scene": "scene",
            "prev": "",
            "timestamp": 0,
            "cameras": [f"camera {i}" for i in range(num_cameras)],
            "img_paths": [""] * num_cameras,
            "image_shape": shape,
            "scale_factors": np.ones((num_cameras, 2)),
            "ego2img": matrices_of(num_cameras, shape).numpy(),
            "ego2global": np.eye(4)[None],
            "can_bus": np.zeros((1, 18), np.float32),
            "has_prev": np.zeros(1, bool),
        }
    )
    return {"inputs": [pixels], "data_samples": [sample]}


def _read(name: str, data: str | None) -> Config:
    path = CONFIGS / f"{name}.py"
    config = read_config(path)
    if data is not None:
        # The leaf names a folder below the usual one.
        root = Path(data, Path(config.train_dataloader.dataset.data_root).name)
        config = read_config(path, {"data_root": str(root)})
    init_default_scope(config.default_scope)
    return config


def _result(
    seconds: Sequence[float], shares: Sequence[float], images: int, peak: int
) -> dict[str, Any]:
    return {
        "seconds": statistics.median(seconds),
        "share": statistics.median(shares),
        "images": images,
        "peak": peak,
    }


def _used(device: str, before: int) -> int:
    """Returns the most bytes that a measurement took, on a GPU those of PyTorch's tensors."""
    return (
        torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else _peak() - before
    )


def _peak() -> int:
    """Returns the most bytes that this process has had."""
    # Linux counts in KiB; macOS would in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="Models of driving: time and memory.")
    parser.add_argument("--data", default="data/driving_scenes", help="the synthetic scenes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on a CPU")
    parser.add_argument("--steps", type=int, default=5, help="of training, behind one to warm up")
    parser.add_argument("--forwards", type=int, default=1, help="of a full-size model")
    parser.add_argument("--only", nargs="+", choices=("tiny", "full", "bytes"), default=None)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    for name in ("threads", "steps", "forwards"):
        if getattr(args, name) < 1:
            parser.error(f"expected --{name} >= 1, got {getattr(args, name)}")
    chosen = args.only or ("tiny", "full", "bytes")
    if not args.measure and "tiny" in chosen and not Path(args.data).is_dir():
        parser.error(
            f"expected the folder of tools/make_driving_scenes.py as --data, got {args.data}"
        )
    if args.measure:
        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        if args.measure in TINY:
            answer = measure_training(args.measure, args.data, args.device, args.steps)
        else:
            answer = measure_forward(args.measure, args.device, args.forwards)
        print(json.dumps(answer))
        return
    device = f"{processor()}, {args.threads} thread(s)"
    if args.device.startswith("cuda"):
        device = torch.cuda.get_device_name(args.device)
    print(
        f"{device}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, mmcv {mmcv.__version__}"
    )
    if "tiny" in chosen:
        _print_table("training step", TINY, args)
    if "full" in chosen:
        _print_table("one prediction", FULL, args)
    if "bytes" in chosen:
        _print_bytes()


def _print_table(title: str, names: Sequence[str], args: argparse.Namespace) -> None:
    print(f"\n| {title} | images | seconds | images/s | view's share | peak, MiB |")
    print("|---|---|---|---|---|---|")
    for name in names:
        flags = [f"--{key}={getattr(args, key)}" for key in ("data", "device", "threads")]
        flags += [f"--steps={args.steps}", f"--forwards={args.forwards}", f"--measure={name}"]
        # A process of its own: a peak never falls again within one.
        done = subprocess.run(
            [sys.executable, __file__, *flags], stdout=subprocess.PIPE, text=True, check=True
        )
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"| {Path(name).name} | {row['images']} | {row['seconds']:.2f} | "
            f"{row['images'] / row['seconds']:.2f} | {row['share']:.0%} | "
            f"{row['peak'] / MIB:.0f} |",
            flush=True,
        )


def _print_bytes() -> None:
    print("\n| spatial cross-attention of a layer | cells | rows a camera | kept, MiB | all, MiB |")
    print("|---|---|---|---|---|")
    # The third has no attention.
    for name in FULL[:2]:
        num_cameras, height, width = IMAGES[name]
        # As the preprocessor pads.
        shape = (height + -height % 32, width + -width % 32)
        model = _read(name, None).model
        stride = 4 * 2 ** model.backbone.out_indices[0]
        row = attention_bytes(model.view, num_cameras, shape, first_stride=stride)
        print(
            f"| {Path(name).name} | {row.num_cells} | {row.num_rows} | "
            f"{row.gathered / MIB:.0f} | {row.everything / MIB:.0f} |"
        )


if __name__ == "__main__":
    main()
