"""Which nvcc a build takes, for which architectures, and what it says when it takes none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import cuda_objects  # noqa: E402
import cuda_toolkit  # noqa: E402
from cuda_toolkit import NoCudaError, choose_archs, find_nvcc, read_toolkit  # noqa: E402

import ops_dcnv3  # noqa: E402

DEMANDED = os.environ.get("OPS_DCNV3_REQUIRE_NATIVE") == "1" and os.environ.get("USE_CUDA") != "0"
SETTINGS = ("USE_CUDA", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST", "NVCC_CCBIN", "CXX")
CUDA_12_4 = {"50", "60", "70", "75", "80", "86", "87", "89", "90"}
CUDA_13_0 = {"75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121"}

# Answers as nvcc does; a "compilation" copies the source, so that the object shows what it saw.
FAKE_NVCC = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
  *--version*) echo "Cuda compilation tools, release 12.9, V12.9.1"; exit;;
  *--list-gpu-arch*) printf 'compute_80\\ncompute_90\\n'; exit;;
  *--dryrun*) echo '#$ INCLUDES="-I{root}/include"'
              echo '#$ SYSTEM_INCLUDES="-isystem" "{root}/include/cccl"'
              echo '#$ LIBRARIES= "-L{root}/stubs" "-L{root}/lib"'; exit;;
esac
{failure}
while [ "$#" -gt 1 ]; do
  case "$1" in -c) source="$2";; -o) cp "$source" "$2";; esac
  shift
done
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's own settings are no part of the tests."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


def fake_toolkit(folder: Path, *, failure: str = "") -> Path:
    """A folder like CUDA_HOME, whose nvcc writes its arguments to ``log``."""
    for name in ("bin", "lib", "include"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "lib" / "libcudart_static.a").touch()
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(FAKE_NVCC.format(root=folder, log=folder / "log", failure=failure))
    nvcc.chmod(0o755)
    return folder


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_a_folder_that_the_environment_names_comes_before_the_path(monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, str(fake_toolkit(tmp_path / "named")))
    monkeypatch.setenv("PATH", str(fake_toolkit(tmp_path / "other") / "bin"))
    assert find_nvcc() == str(tmp_path / "named" / "bin" / "nvcc")


def test_a_named_folder_without_nvcc_is_said_and_no_other_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(fake_toolkit(tmp_path) / "bin"))
    monkeypatch.setenv("CUDA_HOME", "/no/toolkit")
    with pytest.raises(NoCudaError, match="CUDA_HOME is '/no/toolkit', which has no bin/nvcc"):
        find_nvcc()


def test_nvcc_on_the_path_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(fake_toolkit(tmp_path) / "bin"))
    assert find_nvcc() == str(tmp_path / "bin" / "nvcc")


@pytest.mark.parametrize(
    ("supported", "archs"),
    [
        (CUDA_13_0, "80 86 89 90 90+PTX 100 120 120+PTX"),
        (CUDA_13_0 - {"90"}, "80 86 89 100 120 120+PTX"),
        (CUDA_12_4, "80 86 89 90 90+PTX"),
        ({"80"}, "80 80+PTX"),
    ],
)
def test_the_default_is_what_nvcc_knows_of_the_list_with_ptx_of_9_0_and_its_last(supported, archs):
    assert " ".join(choose_archs("", supported)) == archs


@pytest.mark.parametrize(
    ("wanted", "archs"),
    [
        ("9.0", "90"),
        ("8.0;9.0;12.0+PTX", "80 90 120 120+PTX"),
        ("12.0+PTX 8.0 9.0", "80 90 120 120+PTX"),
        (" 9.0;; 8.0 ;9.0 ", "80 90"),
        ("9.0+PTX;12.0", "90 90+PTX 120"),
        ("8.0,9.0, 12.0", "80 90 120"),
        ("9.0a", "90"),
        ("9.0;10.0a;12.0f+PTX", "90 100 120 120+PTX"),
        ("9.0;9.0a", "90"),
        ("Hopper", "90 90+PTX"),
        ("Ampere;Ada", "80 86 86+PTX 89 89+PTX"),
        ("Volta;Turing;Blackwell", "100 120 120+PTX"),
        ("Ampere+Tegra Blackwell+Tegra", "87 110"),
    ],
)
def test_a_list_is_read_as_pytorch_reads_it(wanted, archs):
    assert " ".join(choose_archs(wanted, CUDA_13_0, strict=True)) == archs


@pytest.mark.parametrize("wanted", ["sm_90", "9", "90", "9.0b", "Common", "9.0 + PTX", "9.0+ptx"])
def test_an_entry_of_another_form_is_an_error_that_names_it(wanted):
    with pytest.raises(ValueError, match="expected TORCH_CUDA_ARCH_LIST = .* got '"):
        choose_archs(wanted, CUDA_13_0, strict=True)


def test_an_architecture_that_nvcc_does_not_compile_for_is_an_error_with_those_it_does():
    with pytest.raises(ValueError, match=r"some of 8\.0, .*, 9\.0, which .*, got '12\.0\+PTX'"):
        choose_archs("9.0 12.0+PTX", CUDA_12_4, strict=True)


def test_what_is_wrong_is_left_out_with_a_note_where_no_cuda_is_demanded(capsys):
    assert choose_archs("9.0;12.0+PTX;Common", CUDA_12_4) == ("90",)
    newer, unknown = capsys.readouterr().err.splitlines()
    assert newer.startswith("ops_dcnv3: ") and newer.endswith("got '12.0+PTX'; it is left out")
    assert unknown.startswith("ops_dcnv3: ") and unknown.endswith("got 'Common'; it is left out")


def test_an_architecture_that_the_kernels_cannot_serve_is_left_out_with_a_note(capsys):
    assert choose_archs("7.0 7.5+PTX 8.0", CUDA_13_0) == ("80",)
    notes = [f"ops_dcnv3: no CUDA kernels for {name}: they need 8.0" for name in ("7.0", "7.5+PTX")]
    assert capsys.readouterr().err.splitlines() == notes


@pytest.mark.parametrize("strict", [False, True])
def test_a_list_without_any_architecture_that_the_kernels_serve_is_a_reason(strict):
    with pytest.raises(NoCudaError, match="TORCH_CUDA_ARCH_LIST is '7.5', and of that nvcc and"):
        choose_archs("7.5", CUDA_13_0, strict=strict)


def test_an_nvcc_that_knows_none_of_the_default_is_a_reason():
    with pytest.raises(NoCudaError, match=r"compiles for none of 8\.0, 8\.6, "):
        choose_archs("", {"50", "70", "75"})


@pytest.mark.parametrize(
    ("printed", "archs"),
    [
        ("9.0\n9.0\n", "90"),
        ("12.0\n8.6\n", "86 120"),
        ("7.0\n", "90"),
        ("7.5\n8.9\n", "89"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "90"),
        (None, "90"),
    ],
)
def test_native_is_what_the_driver_names_and_else_9_0(monkeypatch, tmp_path, printed, archs):
    monkeypatch.setenv("PATH", str(tmp_path))
    if printed is not None:
        (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\nprintf "{printed}"\n')
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert " ".join(choose_archs("native", CUDA_13_0)) == archs


def test_the_folders_are_those_that_nvcc_itself_would_use(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path)))
    toolkit = read_toolkit()
    assert toolkit.release == "12.9"
    assert toolkit.include_dirs == (f"{tmp_path}/include", f"{tmp_path}/include/cccl")
    assert toolkit.library_dirs == (f"{tmp_path}/stubs", f"{tmp_path}/lib")
    assert toolkit.archs == ("80", "90", "90+PTX")


@pytest.mark.parametrize(
    ("compiler", "options"),
    [("", "-ccbin c++"), ("g++-12", "-ccbin g++-12"), ("ccache g++", None)],
)
def test_nvcc_is_told_the_compiler_of_the_other_sources(monkeypatch, tmp_path, compiler, options):
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path)))
    monkeypatch.setenv("CXX", compiler)
    read_toolkit()
    trial = (tmp_path / "log").read_text().splitlines()[-1]
    assert options in trial if options else "-ccbin" not in trial


def build_plan(**settings: str) -> subprocess.CompletedProcess[str]:
    """Runs `cuda_toolkit.py` as make does."""
    command = [sys.executable, str(PROJECT / "cuda_toolkit.py")]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)


def test_auto_says_why_it_builds_without(tmp_path):
    plan = build_plan(CUDA_HOME=str(tmp_path))
    assert plan.returncode == 0
    assert plan.stderr == (
        "ops_dcnv3: building WITHOUT the CUDA kernels: "
        f"no nvcc: CUDA_HOME is {str(tmp_path)!r}, which has no bin/nvcc\n"
    )


def test_a_host_compiler_that_nvcc_refuses_is_a_reason_with_its_words(tmp_path):
    error = "host_config.h:143:2: error: #error -- unsupported GNU version!"
    fake_toolkit(tmp_path, failure=f'echo "In file included"; echo "{error}"; exit 1')
    plan = build_plan(CUDA_HOME=str(tmp_path), USE_CUDA="auto")
    assert plan.returncode == 0
    assert "WITHOUT the CUDA kernels" in plan.stderr and error in plan.stderr


@pytest.mark.parametrize("end", ["80", "90"])
def test_an_nvcc_that_fails_at_either_end_of_the_architectures_is_a_reason(tmp_path, end):
    failure = f'case "$*" in *code=sm_{end}*) echo "error: unknown to it"; exit 1;; esac'
    fake_toolkit(tmp_path, failure=failure)
    plan = build_plan(CUDA_HOME=str(tmp_path), TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX")
    assert plan.returncode == 0 and "error: unknown to it" in plan.stderr


def test_a_single_architecture_is_tried_once(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path)))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0+PTX")
    read_toolkit()
    trial = (tmp_path / "log").read_text().splitlines()[-1]
    assert re.findall("-gencode=[^ ]*", trial) == ["-gencode=arch=compute_90,code=sm_90"]


@pytest.mark.parametrize(
    "feature",
    ["__grid_constant__", r"ldmatrix\.[\w.]+", r"mma\.sync\.[\w.]+bf16[\w.]+"]
    + [r"atomicAdd\(reinterpret_cast<float2\*>", "__CUDA_ARCH__ >= 900"],
)
def test_the_trial_has_what_an_older_nvcc_would_fail_at_in_the_sources(feature):
    folder = PROJECT / "src" / "ops_dcnv3" / "csrc" / "cuda"
    sources = "".join(path.read_text() for path in folder.iterdir())
    found = set(re.findall(feature, cuda_toolkit.TRIAL))
    assert found and found <= set(re.findall(feature, sources))


def test_a_toolkit_without_the_static_runtime_is_a_reason(tmp_path):
    (fake_toolkit(tmp_path) / "lib" / "libcudart_static.a").unlink()
    assert "comes without libcudart_static.a" in build_plan(CUDA_HOME=str(tmp_path)).stderr


def test_use_cuda_0_takes_no_nvcc(tmp_path):
    plan = build_plan(CUDA_HOME=str(fake_toolkit(tmp_path)), USE_CUDA="0")
    assert plan.returncode == 0 and plan.stderr.endswith("kernels: USE_CUDA=0\n")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("failure", ["", "exit 1"])
def test_use_cuda_1_without_a_working_nvcc_fails_with_the_reason(tmp_path, failure):
    folder = fake_toolkit(tmp_path, failure=failure) if failure else tmp_path
    plan = build_plan(CUDA_HOME=str(folder), USE_CUDA="1")
    assert plan.returncode == 1
    assert plan.stderr.startswith("ops_dcnv3: USE_CUDA=1, but ")


@pytest.mark.parametrize("wanted", ["9.0a", "8.0,9.0", "Hopper", "9.0;12.0+PTX"])
def test_a_list_for_the_whole_machine_does_not_end_a_build_that_demands_nothing(tmp_path, wanted):
    """Such a list may name what this older nvcc does not know, too."""
    plan = build_plan(CUDA_HOME=str(fake_toolkit(tmp_path)), TORCH_CUDA_ARCH_LIST=wanted)
    assert plan.returncode == 0 and "building the CUDA kernels for" in plan.stdout
    assert ("'12.0+PTX'; it is left out" in plan.stderr) == ("12.0" in wanted)


def test_a_list_of_which_nothing_is_left_builds_without_and_says_why(tmp_path):
    plan = build_plan(CUDA_HOME=str(fake_toolkit(tmp_path)), TORCH_CUDA_ARCH_LIST="12.0")
    assert plan.returncode == 0 and plan.stdout == ""
    assert "WITHOUT the CUDA kernels: TORCH_CUDA_ARCH_LIST is '12.0', and" in plan.stderr


@pytest.mark.parametrize(
    ("setting", "value"), [("USE_CUDA", "yes"), ("TORCH_CUDA_ARCH_LIST", "hopper")]
)
def test_a_wrong_value_is_an_error_that_names_it(tmp_path, setting, value):
    settings = {"CUDA_HOME": str(fake_toolkit(tmp_path)), "USE_CUDA": "1", setting: value}
    plan = build_plan(**settings)
    assert plan.returncode == 1
    assert plan.stderr.startswith(f"ops_dcnv3: expected {setting} = ")
    assert plan.stderr.endswith(f"got {value!r}\n")


@pytest.mark.slow
@pytest.mark.skipif(not DEMANDED, reason="OPS_DCNV3_REQUIRE_NATIVE is not 1, or USE_CUDA is 0")
def test_where_nvcc_works_the_installed_operator_has_cuda_kernels():
    try:
        read_toolkit()
    except NoCudaError as reason:
        pytest.skip(f"no CUDA kernels: {reason}")
    assert ops_dcnv3.extension_info()["cuda_archs"] != ()


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> cuda_toolkit.Toolkit:
    """The fake toolkit, its log empty."""
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path / "cuda")))
    found = read_toolkit()
    (tmp_path / "cuda" / "log").write_text("")
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with a header that includes another one in a different folder."""
    (tmp_path / "csrc" / "cuda").mkdir(parents=True)
    (tmp_path / "csrc" / "shared.h").write_text("// shared\n")
    (tmp_path / "csrc" / "stranger.h").write_text("// included by nobody\n")
    (tmp_path / "csrc" / "cuda" / "near.h").write_text('  # include "../shared.h"\n')
    source = tmp_path / "csrc" / "cuda" / "kernel.cu"
    source.write_text('#include <cuda_runtime.h>\n#include "near.h"\n')
    return source


def compilations(tmp_path: Path) -> int:
    """How often nvcc was called to compile since the fixture."""
    lines = (tmp_path / "cuda" / "log").read_text().splitlines()
    return sum(" -c " in line for line in lines)


def test_a_second_build_compiles_nothing(toolkit, source, tmp_path):
    first = cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 2)
    assert cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1) == first
    assert Path(first[0]).read_text() == source.read_text()
    assert compilations(tmp_path) == 1


@pytest.mark.parametrize("changed", ["kernel.cu", "near.h", "../shared.h"])
def test_a_change_in_a_source_or_a_header_compiles_it_again(toolkit, source, tmp_path, changed):
    first = cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1)
    with (source.parent / changed).open("a") as file:
        file.write("// changed\n")
    assert cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1) != first
    assert compilations(tmp_path) == 2


def test_a_file_that_is_not_included_compiles_nothing_again(toolkit, source, tmp_path):
    first = cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1)
    (source.parents[1] / "stranger.h").write_text("// changed\n")
    assert cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1) == first


def test_other_architectures_have_objects_of_their_own(monkeypatch, toolkit, source, tmp_path):
    first = cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    other = cuda_objects.compile_all(read_toolkit(), [source], tmp_path / "kept", 1)
    assert other != first and all(Path(name).exists() for name in first + other)


def test_old_objects_are_thrown_away(toolkit, source, tmp_path):
    for count in range(cuda_objects.KEPT + 2):
        source.write_text(f"// change {count}\n")
        (last,) = cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1)
    assert len(list((tmp_path / "kept").iterdir())) == cuda_objects.KEPT
    assert Path(last).exists()


def test_a_source_that_does_not_compile_is_an_error_and_leaves_nothing(source, tmp_path, toolkit):
    fake_toolkit(tmp_path / "cuda", failure="echo no >&2; exit 1")
    with pytest.raises(RuntimeError, match="nvcc failed on .*kernel.cu"):
        cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1)
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_quoted_header_that_is_not_there_is_an_error(toolkit, source, tmp_path):
    source.write_text('#include "absent.h"\n')
    with pytest.raises(ValueError, match='expected a file "absent.h" beside '):
        cuda_objects.compile_all(toolkit, [source], tmp_path / "kept", 1)


@pytest.mark.parametrize(
    ("jobs", "sources", "threads"), [(1, 3, 1), (2, 3, 1), (3, 3, 1), (8, 3, 2), (8, 1, 8)]
)
def test_the_compilers_share_the_jobs_out(toolkit, source, tmp_path, jobs, sources, threads):
    paths = [source.with_name(f"{number}.cu") for number in range(sources)]
    for path in paths:
        shutil.copy(source, path)
    cuda_objects.compile_all(toolkit, paths, tmp_path / "kept", jobs)
    lines = (tmp_path / "cuda" / "log").read_text().splitlines()
    assert [line for line in lines if " -c " in line and f"--threads={threads} " not in line] == []
    assert compilations(tmp_path) == sources
