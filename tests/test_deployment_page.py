"""docs/deployment.md: its commands name what exists, with flags that the programs take."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from internimage.integrations.openmmlab.export.deploy_arguments import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")

EXPORT = "internimage/integrations/openmmlab/export"

SAYS = {
    "opset in": "internimage/export/options.py",
    "existing checkpoint": "internimage/integrations/openmmlab/scripts/safe_loading.py",
    "as the first file": f"{EXPORT}/deploy_config.py",
    "--output FILE.onnx is missing": f"{EXPORT}/deploy_arguments.py",
    "flags of one route": f"{EXPORT}/deploy_arguments.py",
    "with a backend_config": f"{EXPORT}/deploy_config.py",
    "that mmdeploy can trace": f"{EXPORT}/mmdeploy_files.py",
    "is converted and kept": f"{EXPORT}/mmdeploy_files.py",
    "no engine was built from it": "internimage/export/engine.py",
    "expected mmdeploy": f"{EXPORT}/mmdeploy_adapter.py",
    "multiples of": f"{EXPORT}/detector.py",
}
"""Of each row of the last table the file that says these words."""


def commands() -> list[list[str]]:
    blocks = re.findall(r"(?:^ {4}(?:python|internimage)\b.*\n(?:^ {5,}.+\n)*)", PAGE, re.MULTILINE)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def program_of(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """What to call, and the words behind it."""
    if words[0] == "internimage":
        return ("-m", "internimage.cli", words[1]), words[2:]
    if words[1] == "-m":
        return ("-m", words[2]), words[3:]
    return (words[1],), words[2:]


@functools.cache
def flags_of(program: tuple[str, ...]) -> frozenset[str]:
    """The flags that a program knows."""
    if program[-1].endswith("/deploy.py"):  # whose parser is one, and slow to import thrice
        return frozenset(build_parser("deploy.py")._option_string_actions)
    done = subprocess.run(
        [sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return frozenset(re.findall(r"--[\w-]+", done.stdout))


def test_the_page_has_commands_for_every_task_and_runtime():
    text = [" ".join(words) for words in commands()]
    for part in (
        *("internimage export", "classification/export.py", "detection/deploy.py"),
        *("segmentation/deploy.py", "internimage run", "-m internimage.runtime"),
        *("tensorrt/build_engine.py", "tensorrt/run_engine.py", "classification/deploy.py"),
    ):
        assert any(part in line for line in text), part


@pytest.mark.slow
def test_every_flag_of_every_command_is_one_of_its_program():
    for words in commands():
        program, rest = program_of(words)
        given = {word for word in rest if word.startswith("--")}
        assert given <= flags_of(program), words


def test_every_path_in_a_command_exists_but_for_what_the_commands_leave():
    for words in commands():
        for word in words:
            if re.match(r"(classification|detection|segmentation|tensorrt)/", word):
                assert (ROOT / word).exists(), word


def test_every_row_of_errors_is_said_somewhere():
    rows = PAGE.split("## What an error means")[1]
    words = re.findall(r"^\| `([^`]+)` \|", rows, re.MULTILINE)
    assert words == list(SAYS)
    for text, file in SAYS.items():
        # A message may be broken over lines of code.
        source = re.sub(r'"\s*\n\s*f?"', "", (ROOT / file).read_text(encoding="utf-8"))
        assert text in source, text


@pytest.mark.slow
def test_the_flags_of_the_exact_export_are_those_of_the_programs():
    table = PAGE.split("## The exact export")[1].split("\n    python")[0]
    named = set(re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE))
    assert named - {"--argmax"} <= flags_of(("-m", "internimage.cli", "export"))
    assert named - {"--tolerance"} <= flags_of(("segmentation/deploy.py",))
