"""The lines of checks and benchmark that need CUDA, run with a stand-in for `torch.cuda`.

What a GPU computes is not known from this; that the lines run, and that checks of streams, graphs
and memory can fail, is.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import stand_in_cuda
import torch
from benchmark_scripts import imported
from dcnv3_cases import Case
from gpu_checks import devices, memory, repeats, table
from torch.utils._python_dispatch import TorchDispatchMode

import ops_dcnv3
from ops_dcnv3 import ops

CPU = torch.device("cpu")
TINY = Case(batch=2, height=5, width=6, groups=2, group_channels=16, softmax=True)
right = ops_dcnv3.dcnv3


@pytest.fixture
def cuda(monkeypatch) -> stand_in_cuda.StandIn:
    """The stand-in, and small cases."""
    for module in (devices, memory):
        monkeypatch.setattr(module, "CASE", TINY)
    return stand_in_cuda.install(monkeypatch)


# ----------------------------------------------------------------------------------------- checks


def test_the_check_of_streams_fails_if_the_call_waits_or_computes_something_else(cuda, monkeypatch):
    devices.on_a_side_stream(CPU, dtype=torch.float32)
    cuda.finished = True
    with pytest.raises(AssertionError, match="returned only after"):
        devices.on_a_side_stream(CPU, dtype=torch.float32)
    cuda.finished = False
    monkeypatch.setattr(ops_dcnv3, "dcnv3", lambda *t, **s: right(*t, **s) * 1.05)
    with pytest.raises(AssertionError, match="output: error"):
        devices.on_a_side_stream(CPU, dtype=torch.float32)


def test_the_check_of_synchronisation_sets_the_alarm_and_takes_it_back(cuda, monkeypatch):
    modes = []

    def watched(*tensors, **settings):
        modes.append(cuda.sync_mode)
        return right(*tensors, **settings)

    monkeypatch.setattr(ops_dcnv3, "dcnv3", watched)
    devices.no_synchronisation(CPU, dtype=torch.float32)
    assert modes == [0, 2, 2, 2, 2] and cuda.sync_mode == 0

    def waits(*tensors, **settings):
        if cuda.sync_mode == 2:
            raise RuntimeError("called a synchronizing CUDA operation")
        return right(*tensors, **settings)

    monkeypatch.setattr(ops_dcnv3, "dcnv3", waits)
    with pytest.raises(RuntimeError, match="synchronizing"):
        devices.no_synchronisation(CPU, dtype=torch.float32)
    assert cuda.sync_mode == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_check_of_graphs_fails_if_a_replay_computes_nothing(cuda, deterministic):
    with pytest.raises(AssertionError, match="output: error"):
        devices.graph_replay(CPU, dtype=torch.float32, deterministic=deterministic)
    assert cuda.replays == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_check_of_a_second_device_is_skipped_where_there_is_one(cuda):
    with pytest.raises(table.Skip, match="second CUDA device"):
        devices.second_device(CPU)


def test_the_check_of_peaks_allows_the_output_and_not_a_byte_more(cuda):
    output_bytes = TINY.batch * TINY.height * TINY.width * 32 * 4
    cuda.peak_bytes = output_bytes
    assert "forward" in memory.peaks(CPU, case=TINY, dtype=torch.float32)
    cuda.peak_bytes = output_bytes + 1
    with pytest.raises(AssertionError, match="forward: output"):
        memory.peaks(CPU, case=TINY, dtype=torch.float32)


def test_the_check_of_peaks_has_a_bound_for_the_backward_pass(cuda, monkeypatch):
    peaks = iter([TINY.batch * TINY.height * TINY.width * 32 * 4, 2**30])

    def requested_peak(device, call):
        return call(), next(peaks)

    monkeypatch.setattr(memory, "requested_peak", requested_peak)
    with pytest.raises(AssertionError, match="backward: peak"):
        memory.peaks(CPU, case=TINY, dtype=torch.float32)


class Limited(torch.autograd.Function):
    """The identity, whose gradient does not fit while memory is limited."""

    @staticmethod
    def forward(ctx, cuda, tensor):
        ctx.cuda = cuda
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        if ctx.cuda.limited:
            raise torch.OutOfMemoryError
        return None, gradient


def test_the_check_of_memory_that_runs_out_wants_its_error_and_a_usable_process(cuda, monkeypatch):
    monkeypatch.setattr(memory, "make_zeros", lambda case, device: [torch.zeros(2)] * 3)

    def operator(*tensors, **settings):
        if tensors[0].dim() == 4:
            return right(*tensors, **settings)
        if cuda.limited:
            raise torch.OutOfMemoryError
        return Limited.apply(cuda, sum(tensors))

    def never_fails(*tensors, **settings):
        return right(*tensors, **settings) if tensors[0].dim() == 4 else sum(tensors)

    def wrong_error(*tensors, **settings):
        raise RuntimeError("API call failed")

    monkeypatch.setattr(ops_dcnv3, "dcnv3", operator)
    memory.out_of_memory(CPU)
    assert not cuda.limited
    monkeypatch.setattr(ops_dcnv3, "dcnv3", never_fails)
    with pytest.raises(AssertionError, match="expected torch.OutOfMemoryError, got a result"):
        memory.out_of_memory(CPU)
    monkeypatch.setattr(ops_dcnv3, "dcnv3", wrong_error)
    with pytest.raises(RuntimeError, match="API call failed"):
        memory.out_of_memory(CPU)
    assert not cuda.limited


class LittleMemory(TorchDispatchMode):
    """Refuses what the check of memory leaves no room for, as PyTorch and the kernels do."""

    def __init__(self, cuda: stand_in_cuda.StandIn) -> None:
        super().__init__()
        self.cuda = cuda

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.cuda.limited and func.namespace == "ops_dcnv3" and args[0].device == CPU:
            raise RuntimeError("new_empty API call failed")
        result = func(*args, **(kwargs or {}))
        if self.cuda.limited and func.namespace == "aten":
            if result.device == CPU and result.nbytes > 256 * memory.MIB:
                raise torch.OutOfMemoryError
        return result


def test_the_check_of_memory_that_runs_out_passes_with_the_operator_itself(cuda, monkeypatch):
    """Whose kernels tell no more than that a call failed, be it the output or a gradient."""
    with LittleMemory(cuda):
        memory.out_of_memory(CPU)
        monkeypatch.setattr(ops, "_allocate_for", lambda op, args: None)
        with pytest.raises(RuntimeError, match="API call failed"):
            memory.out_of_memory(CPU)


def test_a_check_that_needs_more_memory_than_is_free_is_skipped(cuda):
    gpu = torch.device("cuda", 0)
    memory.need(gpu, 2**33)
    with pytest.raises(table.Skip, match="needs 16 GiB of device memory, 8 free"):
        memory.need(gpu, 2**34)


def test_other_work_runs_on_a_stream_of_its_own(cuda, monkeypatch):
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.full((4,), 1.0))
    work = repeats.OtherWork(torch.device("cuda", 0))
    assert work.stream is not None
    work.start()
    assert (work.numbers > 1).all()


# -------------------------------------------------------------------------------------- benchmark


@pytest.fixture
def benchmarks(cuda) -> Iterator[dict[str, ModuleType]]:
    """The benchmark's files, on the stand-in."""
    names = ("bench_cuda", "cuda_contenders", "cuda_machine", "cuda_model", "cuda_timing")
    names += ("competitors", "goals", "measure", "original_design", "workloads")
    with imported(*names) as modules:
        yield modules


def test_every_way_to_time_calls_divides_by_their_number(benchmarks, cuda):
    timer = benchmarks["cuda_timing"].CudaTimer(CPU)
    ran = []
    calls = [lambda: ran.append(1)] * 4
    for way in (timer.captured, timer.ahead, timer.eager):
        assert way(calls)() == cuda.milliseconds / 1e3 / 4
    assert cuda.replays == 2  # one before the clock runs, one under it
    assert len(ran) == (2 + 4) + (1 + 4) + (1 + 4)


def test_arguments_are_many_enough_to_fill_the_cache_and_few_enough_for_the_memory(
    benchmarks, cuda
):
    timer = benchmarks["cuda_timing"].CudaTimer(CPU)
    mib = 2**20
    assert timer.copies(95 * mib) == 6  # 512 MiB
    assert timer.copies(mib // 4) == 1024
    assert timer.copies(2**31) == 1
    timer.cache_bytes = 400 * mib
    assert timer.copies(95 * mib) == 10  # an eighth of the free memory, not four caches


def test_the_bandwidth_counts_what_is_read_and_what_is_written(benchmarks, cuda, monkeypatch):
    timing = benchmarks["cuda_timing"]
    monkeypatch.setattr(timing, "MIB", 1024)
    cuda.milliseconds = 4.0  # of four copies
    assert timing.CudaTimer(CPU).copy_bandwidth() == pytest.approx(2 * 2**20 / 1e-3)


@pytest.mark.slow
def test_a_benchmark_on_cuda_measures_judges_and_falls_back_from_a_graph(
    benchmarks, cuda, monkeypatch, tmp_path, capsys
):
    bench_cuda = benchmarks["bench_cuda"]
    args = bench_cuda.argparse.Namespace(device="cuda:0", quick=True, build=tmp_path)
    monkeypatch.setattr(benchmarks["cuda_timing"].CudaTimer, "copy_bandwidth", lambda self: 4.3e12)
    bench = bench_cuda.set_up(args)
    assert bench.judged and bench.bandwidth == 4.3e12
    has_nvcc = not benchmarks["cuda_machine"].release_of_nvcc().startswith("unknown")
    assert (bench.original is not None) == has_nvcc
    bench.device, bench.original = CPU, None
    bench.layers = [benchmarks["workloads"].Layer("stage 1", 2, 4, 32, 2)]
    monkeypatch.setattr(bench.timer, "copies", lambda nbytes: 2)
    tables = list(bench_cuda.table_stages(bench))
    assert [table.title.split(", ")[-1] for table in tables[::2]] == ["forward", "backward"]
    assert tables[0].rows[0][tables[0].columns.index("verdict")] == "missed"  # 2 ms
    cuda.captures_fail = True
    with pytest.raises(RuntimeError, match="a planted failure of a capture"):
        bench_cuda.measure(bench, bench.layers[0], torch.float32, "forward")
    contender = bench_cuda.Contender("DCNv4", benchmarks["cuda_contenders"].plain_pytorch)
    layer = bench.layers[0]
    arguments = benchmarks["cuda_contenders"].Arguments(*layer.tensors(torch.float32, CPU))
    expected = (contender.make(layer, "forward", arguments)(),)
    sampler = bench_cuda.prepare(
        bench, contender, layer, torch.float32, "forward", [arguments], expected
    )
    assert sampler() == cuda.milliseconds / 1e3
    assert "no CUDA graph of it" in capsys.readouterr().err


def test_the_machine_s_lines_name_the_gpu(benchmarks, cuda):
    text = benchmarks["cuda_machine"].describe_gpu(torch.device("cuda", 0))
    assert "- GPU: NVIDIA H200, compute capability 9.0, 132 multiprocessors, 1024 GiB" in text
    assert ", nvcc " in text and "- nvidia-smi (name,driver_version" in text
