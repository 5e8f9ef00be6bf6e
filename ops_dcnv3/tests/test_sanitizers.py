"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, at each level."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ops_dcnv3 import extension

TESTS = Path(__file__).parent
CSRC = TESTS.parent / "src" / "ops_dcnv3" / "csrc"
COMPILER = os.environ.get("CXX", "c++").split()[0]
SANITIZERS = "address,undefined,float-cast-overflow"
LEVEL_FLAGS = {"v2": "-march=x86-64-v2", "v3": "-march=x86-64-v3", "v4": "-march=x86-64-v4"}
ROUNDS = 1500

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=sorted(LEVEL_FLAGS))
def level(request: pytest.FixtureRequest) -> str:
    """Each level that this machine can run."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no C++ compiler: {COMPILER!r}")
    if extension.cpu_levels() and request.param not in extension.cpu_levels():
        pytest.skip(f"levels of this machine: {extension.cpu_levels()}")
    return request.param


def build(folder: Path, level: str, *sources: Path) -> Path:
    """A program of these sources for one level, with the sanitizers."""
    program = folder / sources[0].stem
    flags = ["-std=c++17", "-O1", "-g1", "-fno-omit-frame-pointer", "-Wno-psabi"]
    kernel_flags = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    done = subprocess.run(
        [
            *(COMPILER, *flags, *kernel_flags, LEVEL_FLAGS[level], f"-DDCNV3_LEVEL={level}"),
            *(f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all", f"-I{CSRC}"),
            *(*map(str, sources), "-o", str(program)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return program


@pytest.fixture(scope="module")
def driver(level: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sanitize/driver.cpp` with the kernels of one level."""
    sources = (TESTS / "sanitize" / "driver.cpp", CSRC / "cpu" / "kernels.cpp")
    return build(tmp_path_factory.mktemp(level), level, *sources)


def run(driver: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program; its leaks are nobody's concern, the kernels allocate nothing."""
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0"}
    return subprocess.run([driver, *arguments], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_no_access_out_of_bounds_and_no_undefined_behaviour(driver, seed):
    done = run(driver, seed, str(ROUNDS))
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{ROUNDS} rounds" in done.stdout


def test_the_sanitizer_sees_a_tensor_that_is_one_element_short(driver):
    done = run(driver, "1", "1", "short")
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


def test_the_branches_for_huge_images_find_the_same_corners(level, tmp_path):
    """They are run on batches of points, which need no image of two gigabytes."""
    program = build(tmp_path, level, TESTS / "sanitize" / "huge_images.cpp")
    done = run(program, "1", str(ROUNDS))
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{ROUNDS} rounds" in done.stdout
