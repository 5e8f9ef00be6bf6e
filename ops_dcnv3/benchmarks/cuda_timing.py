"""Time on a GPU, by CUDA events: what the device needs, and what a call from Python costs.

Kernels of some microseconds are shorter than their launch. So the device's time comes from a CUDA
graph of many calls, replayed while the device is still busy. Each call of a graph has arguments and
results of its own, together several times larger than the L2 cache: every call finds the cache cold
without being preceded by a kernel that empties it. What cannot be captured runs behind a sleeping
kernel instead, so that the host is ahead of the device.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], object]
Sampler = Callable[[], float]  # takes one sample: seconds of one call

MIB = 2**20
LEAST_BYTES = 512 * MIB  # of one sample: 0.1 ms at 5 TB/s, which events resolve to a percent
MOST_COPIES = 1024
SHORT_SLEEP, LONG_SLEEP = 10_000_000, 40_000_000  # cycles: about 5 ms and 20 ms


class CudaTimer:
    """Samplers for calls on one CUDA device; everything runs on one stream, which is captured."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        properties = torch.cuda.get_device_properties(device)
        self.cache_bytes = getattr(properties, "L2_cache_size", 64 * MIB)

    def copies(self, nbytes: int) -> int:
        """How many sets of arguments of so many bytes keep the L2 cache cold."""
        wanted = -(-max(4 * self.cache_bytes, LEAST_BYTES) // nbytes)
        fitting = torch.cuda.mem_get_info(self.device)[0] // (8 * nbytes)
        return max(1, min(wanted, fitting, MOST_COPIES))

    def captured(self, calls: Sequence[Call]) -> Sampler:
        """The device's time of one call, from replays of a graph of all of them."""
        for _ in range(2):
            calls[0]()  # loads kernels, which a capture forbids
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            results = [call() for call in calls]  # kept, or all would write to the same memory

        def sample() -> float:
            assert len(results) == len(calls)
            graph.replay()
            torch.cuda._sleep(SHORT_SLEEP)  # the replay below is in the queue before this ends
            return self._between_events(graph.replay) / len(calls)

        return sample

    def ahead(self, calls: Sequence[Call]) -> Sampler:
        """The device's time of one call, launched while the device sleeps."""
        calls[0]()

        def sample() -> float:
            torch.cuda._sleep(LONG_SLEEP)
            return self._between_events(lambda: [call() for call in calls]) / len(calls)

        return sample

    def eager(self, calls: Sequence[Call]) -> Sampler:
        """The time of one call in a row of them from Python, launches and all."""
        calls[0]()

        def sample() -> float:
            torch.cuda.synchronize(self.device)
            return self._between_events(lambda: [call() for call in calls]) / len(calls)

        return sample

    def _between_events(self, run: Call) -> float:
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def copy_bandwidth(self) -> float:
        """Bytes a second that a large copy reads and writes together."""
        free = torch.cuda.mem_get_info(self.device)[0]
        source = torch.ones(min(1024 * MIB, free // 8) // 4, device=self.device)
        target = torch.empty_like(source)
        sample = self.captured([lambda: target.copy_(source)] * 4)
        return 2 * source.nbytes / statistics.median(sample() for _ in range(15))


class HostTimer:
    """The same for calls on a CPU: to try the benchmark where there is no GPU."""

    def copies(self, nbytes: int) -> int:
        """Two, so that what handles several sets is tried as well."""
        return 2

    def captured(self, calls: Sequence[Call]) -> Sampler:
        """Seconds of one call."""

        def sample() -> float:
            start = time.perf_counter()
            for call in calls:
                call()
            return (time.perf_counter() - start) / len(calls)

        return sample

    ahead = eager = captured

    def copy_bandwidth(self) -> float:
        """Bytes a second that a copy of 64 MiB reads and writes together."""
        source = torch.ones(16 * MIB)
        sample = self.captured([lambda: source.clone()])
        return 2 * source.nbytes / statistics.median(sample() for _ in range(3))


Timer = CudaTimer | HostTimer
