"""The wheel of onedl-mmcv: kept for one PyTorch, never without operators. pip itself is played."""

from __future__ import annotations

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tools import build_mmcv

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = "mmcv/_ext.cpython-311-x86_64-linux-gnu.so"


def write_wheel(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "onedl_mmcv-1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "content " * 100)
    return wheel


def play_pip(monkeypatch: pytest.MonkeyPatch, *names: str, code: int = 0) -> list[list[str]]:
    """Lets ``pip wheel`` write a wheel with these files, or fail; returns its command lines."""
    commands: list[list[str]] = []

    def run(command, **_):
        if "pip" not in command:  # a compiler that is not GCC
            return subprocess.CompletedProcess(command, 0, "played 1.0")
        commands.append(list(command))
        if names:
            write_wheel(Path(command[command.index("--wheel-dir") + 1]), *names)
        return subprocess.CompletedProcess(command, code, "line 1\nerror: no such header\n")

    monkeypatch.setattr(build_mmcv.subprocess, "run", run)
    return commands


def test_a_wheel_is_built_once_and_then_found(tmp_path, monkeypatch, capsys):
    commands = play_pip(monkeypatch, OPERATORS, "mmcv/__init__.py")
    assert build_mmcv.main(["--cache", str(tmp_path)]) == 0
    assert build_mmcv.main(["--cache", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and Path(first).is_file()
    assert len(commands) == 1
    assert {"--no-build-isolation", "--no-cache-dir"} <= set(commands[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [Path(first).parent.name]


def test_rebuild_builds_again(tmp_path, monkeypatch):
    commands = play_pip(monkeypatch, OPERATORS)
    for _ in range(2):
        assert build_mmcv.main(["--cache", str(tmp_path), "--rebuild"]) == 0
    assert len(commands) == 2


def test_a_wheel_without_operators_is_refused_and_not_kept(tmp_path, monkeypatch, capsys):
    play_pip(monkeypatch, "mmcv/__init__.py")
    assert build_mmcv.main(["--cache", str(tmp_path)]) == 2
    assert "expected compiled operators" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == []


def test_a_failed_build_shows_the_last_lines_of_pip(tmp_path, monkeypatch, capsys):
    play_pip(monkeypatch, code=1)
    assert build_mmcv.main(["--cache", str(tmp_path)]) == 2
    assert "error: no such header" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["truncated", "empty", "no operators"])
def test_a_spoilt_wheel_of_the_cache_is_not_taken(tmp_path, harm):
    wheel = write_wheel(tmp_path, "mmcv/x.py" if harm == "no operators" else OPERATORS)
    content = wheel.read_bytes()
    if harm != "no operators":
        wheel.write_bytes(content[: len(content) // 2] if harm == "truncated" else b"")
    assert build_mmcv.find_wheel(tmp_path) is None


def test_a_whole_wheel_of_the_cache_is_taken(tmp_path):
    assert build_mmcv.find_wheel(tmp_path) is None
    wheel = write_wheel(tmp_path, OPERATORS)
    assert build_mmcv.find_wheel(tmp_path) == wheel


def test_the_folder_of_a_wheel_tells_versions_apart(monkeypatch):
    version = build_mmcv.pinned_version()
    key = build_mmcv.cache_key(version)
    assert version in key and torch.__version__ in key and "/" not in key
    monkeypatch.setenv("FORCE_CUDA", "1")
    with_cuda = build_mmcv.cache_key(version)
    monkeypatch.setattr(torch, "__version__", "2.99.0+cpu")
    assert len({key, with_cuda, build_mmcv.cache_key(version)}) == 3


def test_the_cache_follows_the_users_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build_mmcv.default_cache() == tmp_path / "internimage" / "wheels"


@pytest.mark.slow
def test_a_missing_compiler_is_named_before_anything_is_downloaded(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / "build_mmcv.py", "--cache", tmp_path],
        env={"CXX": "no-such-compiler", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "no-such-compiler" in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def compile_vector(tmp_path: Path, flags: str, *more: str) -> str:
    """Compile a file that includes nothing itself; return ``!`` if GCC took a precompiled header.

    And ``x`` if it looked at one, and read the text instead.
    """
    source = tmp_path / "a.cpp"
    source.write_text("int size() { return std::vector<int>(3).size(); }\n")
    command = ["c++", *shlex.split(flags), "-fPIC", *more, "-H", "-c", str(source), "-o", "a.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr[0]


def test_files_take_the_header_from_the_precompiled_one_and_else_from_itself(tmp_path, monkeypatch):
    version = subprocess.run(["c++", "--version"], capture_output=True, text=True)
    if "Free Software" not in version.stdout:
        pytest.skip("c++ is not GCC")
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("CXX", "CFLAGS"):
        monkeypatch.delenv(name, raising=False)
    flags = build_mmcv.precompile("vector", folder)["CFLAGS"]
    assert "-g" not in shlex.split(flags) and "-O3" in flags
    assert compile_vector(tmp_path, flags, build_mmcv.STANDARD) == "!"
    assert compile_vector(tmp_path, flags, "-std=c++20") == "x"
    assert build_mmcv.precompile("no/such/header.h", folder) == {}
    monkeypatch.setenv("CFLAGS", "-O1")
    assert build_mmcv.precompile("vector", folder) == {}


def test_the_installed_package_has_its_operators_and_the_pinned_version():
    import mmcv
    import mmcv.ops  # fails where the wheel was built without them

    assert mmcv.__version__ == build_mmcv.pinned_version()
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    kept, indices = mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
    assert indices.tolist() == [0, 2] and kept.shape == (2, 5)
