"""A `torch.cuda` that computes on the CPU: it lets lines that need a GPU run, and proves no more.

Streams and events do nothing, and a graph runs once, when it is captured. Every name that is
replaced must exist in `torch.cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch


class StandIn:
    """What the test may set before, and look at after, the lines that it runs."""

    def __init__(self) -> None:
        self.finished = False  # what an event says when it is asked
        self.peak_bytes = 0
        self.devices = 1
        self.limited = False  # by set_per_process_memory_fraction
        self.replays = 0
        self.milliseconds = 2.0  # between any two events
        self.sync_mode = 0
        self.captures_fail = False


def install(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put it in the place of `torch.cuda`."""
    cuda = StandIn()

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            pass

        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            pass

        def query(self) -> bool:
            return cuda.finished

        def elapsed_time(self, end: Event) -> float:
            return cuda.milliseconds

    class Stream:
        cuda_stream = 0

        def __init__(self, device: torch.device | None = None) -> None:
            pass

        def wait_stream(self, stream: Stream) -> None:
            pass

        def record_event(self) -> Event:
            return Event()

        def synchronize(self) -> None:
            pass

    class CUDAGraph:
        def replay(self) -> None:
            cuda.replays += 1

    @contextmanager
    def inside(*arguments: object, **settings: object) -> Iterator[None]:
        yield

    @contextmanager
    def capture(graph: CUDAGraph, stream: Stream | None = None) -> Iterator[None]:
        if cuda.captures_fail:
            raise RuntimeError("a planted failure of a capture")
        yield

    def limit(fraction: float, device: torch.device) -> None:
        cuda.limited = fraction < 1

    def set_mode(mode: int | str) -> None:
        cuda.sync_mode = {"error": 2}.get(mode, mode)  # type: ignore[arg-type]

    properties = SimpleNamespace(
        name="NVIDIA H200",
        major=9,
        minor=0,
        multi_processor_count=132,
        total_memory=2**40,
        L2_cache_size=50 * 2**20,
    )
    for name, value in {
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": CUDAGraph,
        "stream": inside,
        "device": inside,
        "graph": capture,
        "current_stream": lambda device=None: Stream(),
        "synchronize": lambda device=None: None,
        "_sleep": lambda cycles: None,
        "empty_cache": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: cuda.devices,
        "set_device": lambda device: None,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "get_sync_debug_mode": lambda: cuda.sync_mode,
        "set_sync_debug_mode": set_mode,
        "mem_get_info": lambda device=None: (2**33, 2**40),
        "memory_reserved": lambda device=None: 2**30,
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 2**30,
        "memory_stats": lambda device=None: {
            "requested_bytes.all.current": 0,
            "requested_bytes.all.peak": cuda.peak_bytes,
        },
        "reset_peak_memory_stats": lambda device=None: None,
        "set_per_process_memory_fraction": limit,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)  # raises for a name that is not there
    return cuda
