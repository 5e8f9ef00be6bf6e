"""README and docs/ are true: the example runs, and what they name exists."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROOMS = (
    *("ops_dcnv3", "internimage", "classification", "detection"),
    *("segmentation", "autonomous_driving", "tools", "tests", "docs"),
    "requirements",
)
# Left behind by a command, so absent from a fresh checkout.
GENERATED = (".venv", "runs/", "ops_dcnv3/dist/")


def page_ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_spans(text: str) -> list[str]:
    """Everything between single backticks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def code_lines(text: str) -> list[str]:
    """Lines of indented and of fenced blocks."""
    fenced = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    return [line.strip() for line in re.findall(r"^ {4}.+$", text, re.MULTILINE)] + [
        line.strip() for line in fenced.splitlines()
    ]


def named_paths(text: str) -> set[str]:
    """Code spans that are meant as a path in the checkout."""
    return {
        span
        for span in code_spans(text)
        if re.fullmatch(r"[\w.\-/]+", span)
        and (
            span.split("/")[0] in ROOMS
            and "/" in span
            or re.search(r"\.(py|md|toml|txt|cff)$", span)
        )
        and not span.startswith(GENERATED)
    }


def exists_somewhere(path: str) -> bool:
    """Whether the path exists from the root, or as the end of a path in a package."""
    return (ROOT / path).exists() or any(
        next((ROOT / room).glob(f"**/{path}"), None) for room in ROOMS if "/" not in path
    )


def named_attributes(text: str) -> set[str]:
    """Code spans and calls that are meant as an attribute of one of the two packages."""
    return {
        match
        for span in [*code_spans(text), *code_lines(text)]
        for match in re.findall(
            r"(?<![\w./\-])((?:ops_dcnv3|internimage)(?:\.[A-Za-z_]\w*)+)", span
        )
        if not match.endswith((".py", ".md"))
    }


def resolves(dotted: str) -> bool:
    """Whether ``package.module.attribute`` can be imported and looked up."""
    names = dotted.split(".")
    for count in range(len(names), 0, -1):
        try:
            found = importlib.import_module(".".join(names[:count]))
        except ImportError:
            continue
        for name in names[count:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


@pytest.mark.slow
def test_the_python_block_of_the_readme_runs_as_it_stands(tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    classes, maps, layer = result.stdout.splitlines()
    assert classes == "torch.Size([2, 10])"
    assert maps == "[(2, 64, 56, 56), (2, 128, 28, 28), (2, 256, 14, 14), (2, 512, 7, 7)]"
    assert layer == "torch.Size([2, 56, 56, 64])"


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_link_leads_to_a_file(page: Path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_path_that_a_page_names_exists(page: Path):
    paths = named_paths(page.read_text(encoding="utf-8"))
    assert sorted(path for path in paths if not exists_somewhere(path)) == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_make_target_that_a_page_names_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?<![\w-])make (?!TARGET)([a-z][a-z-]*)", "\n".join(code_spans(text)))
    named += re.findall(r"^make ([a-z-]+)", "\n".join(code_lines(text)), re.MULTILINE)
    assert set(named) - set(rules) == set()


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_name_in_the_two_packages_that_a_page_uses_exists(page: Path):
    names = named_attributes(page.read_text(encoding="utf-8"))
    assert sorted(name for name in names if not resolves(name)) == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_environment_variable_that_a_page_names_is_read_by_the_code(page: Path):
    sources = [ROOT / "Makefile", ROOT / "ops_dcnv3" / "setup.py"]
    sources += (ROOT / "ops_dcnv3" / "src").rglob("*.py")
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    named = set(re.findall(r"OPS_DCNV3_[A-Z_]+", page.read_text(encoding="utf-8")))
    assert {name for name in named if name not in code} == set()


@pytest.mark.slow
def test_the_command_line_in_the_readme_has_subcommands_and_options_that_exist():
    lines = code_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    commands = [line for line in lines if re.search(r"internimage (predict|detect) ", line)]
    assert {command.split()[1] for command in commands} == {"predict", "detect"}
    for command in commands:
        subcommand = command.split()[1]
        printed = subprocess.run(
            [sys.executable, "-m", "internimage.cli", subcommand, "--help"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for option in re.findall(r"--[\w-]+", command):
            assert option in printed, option


def test_the_folder_map_names_every_folder_of_the_project():
    map_rows = re.findall(r"^\| `([\w.]+)/` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    if not listed:
        pytest.skip("not a git checkout, so the project's own folders are not known")
    folders = {name.split("/")[0] for name in listed if "/" in name and not name.startswith(".")}
    assert folders == set(map_rows)


@pytest.mark.parametrize(
    ("finder", "text", "found"),
    [
        (named_paths, "see `docs/none.md` and `a/b`, `x = 1`", {"docs/none.md"}),
        (named_paths, "`runs/demo/` is made by `make demo`", set()),
        (
            named_attributes,
            "`internimage.nothing(3)` in `internimage/cli.py`",
            {"internimage.nothing"},
        ),
        (named_attributes, "    y = ops_dcnv3.dcnv3(x)", {"ops_dcnv3.dcnv3"}),
    ],
)
def test_what_a_page_names_is_found(finder, text: str, found: set[str]):
    assert finder(text) == found


def test_names_that_do_not_exist_are_noticed():
    assert not resolves("internimage.no_such_function")
    assert not resolves("no_such_package.module")
    assert resolves("ops_dcnv3.modules.DCNv3")
    assert not exists_somewhere("docs/no_such_page.md")
    assert exists_somewhere("docs/install.md")
    assert exists_somewhere("reference.py")
