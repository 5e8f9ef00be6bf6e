"""What holds for every file of the project: size, length, names, no trace of anybody's machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 1_000_000
MAX_LINES = 600
SOURCES = {".py", ".h", ".hpp", ".cuh", ".cpp", ".cu", ".yaml"}
# Folders in which people keep their work: a path below one of them is of one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:home|root|Users|work|mnt|scratch)/[\w.-]+")


def project_files() -> list[Path]:
    """Files that are in git or would be added to it, relative to the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so the project's own files are not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """The file's text, or None for a binary file."""
    data = (ROOT / path).read_bytes()
    return None if b"\0" in data else data.decode("utf-8")


def python_sources() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def unsafe_loads(source: str) -> list[int]:
    """Lines that read a pickle in a way that can run code from the file."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not isinstance(node.func.value, ast.Name):
            continue
        name = f"{node.func.value.id}.{node.func.attr}"
        safe = any(
            keyword.arg == "weights_only" and getattr(keyword.value, "value", None) is True
            for keyword in node.keywords
        )
        if name in ("pickle.load", "pickle.loads") or (name == "torch.load" and not safe):
            lines.append(node.lineno)
    return lines


def test_no_file_is_larger_than_one_megabyte():
    large = [str(path) for path in project_files() if (ROOT / path).stat().st_size > MAX_BYTES]
    assert large == []


def test_no_source_file_is_longer_than_600_lines():
    sources = [path for path in project_files() if path.suffix in SOURCES]
    assert len(sources) > 20
    long = [str(path) for path in sources if len((text_of(path) or "").splitlines()) > MAX_LINES]
    assert long == []


def test_no_file_names_a_path_of_one_machine():
    found = [
        f"{path}: {match.group()}"
        for path in project_files()
        for match in MACHINE_PATH.finditer(text_of(path) or "")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_machine_path"),
    [
        ("data in /" + "home/ada/imagenet", True),
        ("'/" + "mnt/disk'", True),
        ("http://host/" + "home/page", False),
        ("$HOME/" + "work/x", False),
        ("a/" + "work/b", False),
    ],
)
def test_the_search_for_machine_paths_tells_them_from_others(text: str, is_machine_path: bool):
    assert bool(MACHINE_PATH.search(text)) == is_machine_path


def test_the_set_up_leaves_the_choice_of_the_registry_to_pip():
    files = ["Makefile", "setup.py", "ops_dcnv3/setup.py", ".ci/run"]
    files += [str(path.relative_to(ROOT)) for path in (ROOT / "requirements").iterdir()]
    found = [
        f"{name}: {word}"
        for name in files
        for word in ("://", "index-url", "find-links")
        if word in (ROOT / name).read_text(encoding="utf-8")
    ]
    assert found == []


def test_text_files_end_with_a_newline_and_have_no_trailing_blanks():
    wrong = []
    for path in project_files():
        text = text_of(path)
        if text and (not text.endswith("\n") or re.search(r"[ \t\r]$", text, re.MULTILINE)):
            wrong.append(str(path))
    assert wrong == []


def test_no_file_is_called_utils():
    assert [
        str(path) for path in project_files() if path.stem in ("utils", "util", "helpers")
    ] == []


def test_no_checkpoint_is_read_in_a_way_that_can_run_code():
    found = [
        f"{path}:{line}"
        for path in python_sources()
        for line in unsafe_loads((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import torch\ntorch.load(p)", [2]),
        ("torch.load(p, weights_only=False)", [1]),
        ("torch.load(p, map_location='cpu', weights_only=True)", []),
        ("pickle.loads(data)", [1]),
        ("json.load(f)", []),
    ],
)
def test_the_search_for_unsafe_loads_finds_them(source: str, lines: list[int]):
    assert unsafe_loads(source) == lines


def test_the_licence_is_mit_in_the_file_and_in_both_packages():
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License\n")
    # A wheel takes its licence from its own project's folder.
    assert (ROOT / "ops_dcnv3" / "LICENSE").read_text(encoding="utf-8") == licence
    for setup in ("setup.py", "ops_dcnv3/setup.py"):
        assert 'license="MIT"' in (ROOT / setup).read_text(encoding="utf-8"), setup


def test_the_version_of_the_citation_and_the_changelog_is_that_of_the_package():
    init = (ROOT / "internimage" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', init, re.MULTILINE)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_pin_is_exact():
    pins = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [pin for pin in pins if pin and not pin.startswith("#")]
    assert len(pins) > 30
    assert [
        pin for pin in pins if not re.fullmatch(r"[\w-]+==[\w.]+(; python_version .+)?", pin)
    ] == []
