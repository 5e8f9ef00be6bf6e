"""How fast an engine is: latency and images a second, as one row of the original's table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loaded_engine import Engine
from profiles import OPEN, Shape

WARM_UP = 20
"""Runs before the first that counts: clocks rise, lazily loaded kernels load."""

ORIGINAL_FPS = {
    ("internimage_t", 224): 156,
    ("internimage_s", 224): 129,
    ("internimage_b", 224): 116,
    ("internimage_l", 384): 56,
    ("internimage_xl", 384): 47,
}
"""(model, side in pixels) -> frames a second of the original's table: TensorRT, one image at a
time, neither the GPU nor the precision stated."""

COLUMNS = (
    "model", "resolution", "batch", "types", "FPS", "latency ms", "p99 ms", "copies ms",
    "original's FPS", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Latencies:
    """Milliseconds of every run that counted.

    Args:
        model: of the network alone, inputs and outputs on the device.
        copies: of inputs to the device and outputs back, page-locked.
        batch: images a run.
    """

    model: Sequence[float]
    copies: Sequence[float]
    batch: int

    @property
    def median(self) -> float:
        """Of the network, ms."""
        return statistics.median(self.model)

    @property
    def p99(self) -> float:
        """What 99 of 100 runs stay within, ms."""
        # The nearest rank, a run that there was: ceil(0.99 n), counted from 1.
        ordered = sorted(self.model)
        return ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]

    @property
    def fps(self) -> float:
        """Images a second at the median latency, copies left out."""
        return 1000.0 * self.batch / self.median


def random_inputs(
    shapes: Mapping[str, Shape], dtypes: Mapping[str, np.dtype]
) -> dict[str, np.ndarray]:
    """Return inputs for a run: normal numbers, and for ``image_size`` the whole image.

    Raises:
        ValueError: the first input is no batch of images.
    """
    name, image = next(iter(shapes.items()))
    if len(image) != 4:
        raise ValueError(
            f"expected an engine whose first input is (N, C, H, W), got {name} of "
            f"{'x'.join(map(str, image)) or 'no size'}"
        )
    random = np.random.default_rng(0)
    height, width = image[2:]
    found = {}
    for name, shape in shapes.items():
        # Of the types that exports have: floats are pixels or times and places, whole numbers with
        # two columns are image_size.
        if dtypes[name].kind == "f":
            found[name] = random.standard_normal(shape).astype(dtypes[name])
        elif len(shape) != 2 or shape[1] != 2:
            found[name] = np.zeros(shape, dtypes[name])
        else:
            found[name] = np.broadcast_to(np.array([height, width]), shape).astype(dtypes[name])
    return found


def measure(engine: Engine, inputs: Mapping[str, np.ndarray], iterations: int) -> Latencies:
    """Time runs one after the other by the device's own clock.

    Args:
        engine: to run.
        inputs: by name.
        iterations: runs that count.
    """
    cuda, stream = engine.cuda, engine.stream
    engine.fill(inputs)  # once: the host's own copy is no part of what is timed
    events = [cuda.make_event() for _ in range(4)]
    model, copies = [], []
    for k in range(WARM_UP + iterations):
        cuda.record(events[0], stream)
        engine.upload()
        cuda.record(events[1], stream)
        engine.enqueue()
        cuda.record(events[2], stream)
        engine.download()
        cuda.record(events[3], stream)
        # One run at a time: the next one would hide its copies behind this one.
        cuda.wait(stream)
        if k >= WARM_UP:
            model.append(cuda.elapsed(events[1], events[2]))
            copies.append(cuda.elapsed(events[0], events[1]) + cuda.elapsed(events[2], events[3]))
    return Latencies(model, copies, next(iter(inputs.values())).shape[0])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of :data:`COLUMNS` out as a table of Markdown."""
    lines = [COLUMNS, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(COLUMNS))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(COLUMNS), line(["-" * w for w in widths]), *map(line, rows)])


def row(
    latencies: Latencies, *, model: str, resolution: tuple[int, int], types: str, device: str
) -> list[str]:
    """Return one row.

    Args:
        latencies: what was measured.
        model: its name; the original's figure is that of the architecture, ``internimage_t`` in
            ``internimage_t_1k_224``.
        resolution: height and width, pixels.
        types: of the numbers, as ``"fp16"``.
        device: what was measured on.
    """
    height, width = resolution
    architecture = "_".join(model.split("_")[:2])
    original = ORIGINAL_FPS.get((architecture, height)) if height == width else None
    return [
        model,
        f"{height}x{width}" if OPEN not in resolution else "?",
        str(latencies.batch),
        types,
        f"{latencies.fps:.0f}" if latencies.fps >= 100 else f"{latencies.fps:.1f}",
        f"{latencies.median:.2f}",
        f"{latencies.p99:.2f}",
        f"{statistics.median(latencies.copies):.2f}",
        "-" if original is None or latencies.batch != 1 else str(original),
        device,
    ]
