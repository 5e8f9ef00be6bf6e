"""The emulator that runs CUDA kernels on the host finds the mistakes that it is there to find."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from host_build import build

ORDERS = {"ascending": (0, 0), "descending": (1, 0), "random": (2, 7), "random again": (2, 8)}
THREADS = np.arange(64)

orders = pytest.mark.parametrize("order", ORDERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    return build(folder, "planted", "plain")


@pytest.fixture(scope="module")
def watched(folder: Path) -> Path:
    return build(folder, "planted", "watched")


@pytest.fixture(scope="module")
def sanitized(folder: Path) -> Path:
    return build(folder, "planted", "sanitized")


def run(program: Path, kernel: str, order: str = "ascending") -> subprocess.CompletedProcess[str]:
    """Run one kernel of planted.cpp with its blocks, warps and lanes in this order."""
    number, seed = ORDERS[order]
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    command = [program, kernel, str(number), str(seed)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def numbers(program: Path, kernel: str, order: str = "ascending") -> np.ndarray:
    """The 64 numbers that a kernel without mistakes leaves."""
    done = run(program, kernel, order)
    assert done.returncode == 0, done.stdout + done.stderr
    return np.array(done.stdout.split(), dtype=float)


def error(program: Path, kernel: str, order: str = "ascending") -> str:
    """The error that the emulator ends a kernel with."""
    done = run(program, kernel, order)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def shuffle_source(lane: int, source: int, width: int) -> int:
    """The lane that __shfl_sync reads, after the pseudocode of `shfl.idx` in the PTX manual."""
    segment_mask = (32 - width) & 31
    return (source & 31 & ~segment_mask) | (lane & segment_mask)


def shuffle_xor_source(lane: int, mask: int, width: int) -> int:
    """The same for __shfl_xor_sync and `shfl.bfly`."""
    segment_mask = (32 - width) & 31
    last = (lane & segment_mask) | (31 & ~segment_mask)
    source = lane ^ mask
    return source if source <= last else lane


def product() -> np.ndarray:
    """1 + A B with the matrices of `multiply` in planted.cpp, (16, 8)."""
    a = np.fromfunction(lambda m, k: (3 * m + 5 * k) % 11 - 5, (16, 16))
    b = np.fromfunction(lambda k, n: (7 * k + 2 * n) % 13 - 6, (16, 8))
    return 1 + a @ b


def transposed(matrix: int) -> np.ndarray:
    """What `ldmatrix.trans` gives the 32 lanes of a matrix with 64 m + 8 row + column in it."""
    lane, half = np.arange(32)[:, None], np.arange(2)
    return (64 * matrix + 8 * (2 * (lane % 4) + half) + lane // 4).ravel()


# What each kernel without a mistake must leave, from its source in planted.cpp.
SOUND = {
    "warp_sum": np.repeat([np.arange(32).sum(), np.arange(32, 64).sum()], 32),
    "shuffle_source": np.array(
        [t // 32 * 32 + shuffle_source(t % 32, t * 5 - 7, 8 if t < 32 else 32) for t in THREADS]
    ),
    "shuffle_xor_segments": np.array(
        [t // 32 * 32 + shuffle_xor_source(t % 32, 9 if t < 32 else 3, 8) for t in THREADS]
    ),
    "all": (THREADS < 32).astype(float),
    "reverse": THREADS[::-1],
    "blocks": THREADS // 16,
    "multiply_upper": product()[:8].ravel(),
    "multiply_lower": product()[8:].ravel(),
    "load_matrix_0": transposed(0),
    "load_matrix_3": transposed(3),
    "atomic_sum": np.where(THREADS == 0, 2 * THREADS.sum() - 1, -1),
}
# Threads that do not meet where they must, and launches that no GPU accepts.
MEETING_MISTAKES = {
    "divergent_branch": "divergent: ",
    "divergent_kind": "divergent: ",
    "divergent_width": "divergent: ",
    "divergent_loop": "has returned",
    "early_return": "has returned",
    "sync_or_shuffle": "is in sync",
    "half_sync": "has returned",
    "two_syncs": "divergent: ",
    "width_12": "no power of two",
    "atomic_elsewhere": "outside of the shared memory",
    "atomic_pair_misaligned": "no multiple of 8",
    "matrix_row_misaligned": "no multiple of 16",
    "matrices_or_shuffle": "divergent: ",
    "no_blocks": "launch of 0 blocks",
    "too_much_shared": "launch with 233472 bytes",
}
# What only a look at each access finds, whatever the order.
ACCESS_MISTAKES = {
    "missing_sync": "nobody wrote it before",
    "shuffle_for_sync": "race with the write",
    "overwritten_early": "race with the",
    "unwritten_shared": "byte 36: nobody wrote it before",
    "shared_too_short": "4 bytes reach out of it",
    "blocks_collide": "race with the write",
    "write_to_input": "it is an input",
    "past_the_end": "read of input at byte 256: 4 bytes reach out of it",
    "misaligned": "no multiple of that",
}


@orders
@pytest.mark.parametrize("kernel", SOUND)
def test_a_sound_kernel_gives_the_same_in_every_order(plain, watched, kernel, order):
    np.testing.assert_array_equal(numbers(plain, kernel, order), SOUND[kernel])
    np.testing.assert_array_equal(numbers(watched, kernel, order), SOUND[kernel])


@orders
@pytest.mark.parametrize("kernel", MEETING_MISTAKES)
def test_threads_that_do_not_meet_are_an_error_and_no_hang(plain, kernel, order):
    assert MEETING_MISTAKES[kernel] in error(plain, kernel, order)


@orders
@pytest.mark.parametrize("kernel", ACCESS_MISTAKES)
def test_the_watch_finds_races_and_wrong_accesses(watched, kernel, order):
    assert ACCESS_MISTAKES[kernel] in error(watched, kernel, order)


def test_the_watch_finds_an_atomic_addition_beside_a_plain_write(watched):
    assert "atomic addition of shared memory" in error(watched, "plain_and_atomic")


def test_a_missing_sync_shows_in_the_results_of_some_order(plain):
    results = [numbers(plain, "missing_sync", order) for order in ORDERS]
    assert not all(np.array_equal(r, results[0], equal_nan=True) for r in results)


def test_shared_memory_that_nobody_wrote_is_nan(plain):
    result = numbers(plain, "unwritten_shared")
    assert np.isnan(result[54])
    np.testing.assert_array_equal(np.delete(result, 54), np.delete(THREADS[::-1], 54))


@pytest.mark.parametrize("kernel, thread", [("nowhere", 33), ("deep", 0)])
def test_an_access_to_no_memory_and_an_overflow_of_the_stack_name_the_thread(plain, kernel, thread):
    assert f"thread {thread} of block 0: segmentation fault" in error(plain, kernel)


@orders
@pytest.mark.parametrize("kernel", SOUND)
def test_sound_kernels_pass_the_sanitizers(sanitized, kernel, order):
    np.testing.assert_array_equal(numbers(sanitized, kernel, order), SOUND[kernel])


@pytest.mark.parametrize("kernel", ["shared_too_short", "past_the_end"])
def test_the_sanitizers_see_accesses_out_of_bounds(sanitized, kernel):
    assert "heap-buffer-overflow" in run(sanitized, kernel).stderr


def test_the_sanitizers_survive_threads_that_are_dropped(sanitized):
    assert "divergent: " in error(sanitized, "divergent_branch", "random")


@pytest.mark.slow
def test_the_portable_way_to_switch_threads_gives_the_same(folder):
    """The other one exchanges registers in assembly, on Linux and x86-64."""
    program = build(folder, "planted", "plain", extra=["-DHOST_LANES_UCONTEXT"])
    for kernel, expected in SOUND.items():
        np.testing.assert_array_equal(numbers(program, kernel, "random"), expected)
