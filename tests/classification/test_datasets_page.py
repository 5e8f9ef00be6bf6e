"""docs/datasets.md names what there is."""

import re
import shlex
from pathlib import Path

import pytest

from classification.config import flatten, get_default_config
from classification.data import DATASETS
from classification.data.class_lists import wordnet_ids
from classification.data.storage import STORAGES
from tools import make_shards, prepare_imagenet

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
TABLES = [
    {
        name
        for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in cell.split(", ")
    }
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
]


def test_the_tables_have_every_data_set_and_storage():
    assert TABLES[0] == {f"`{name}`" for name in DATASETS} | {"`--dataset`"}
    assert TABLES[1] == {f"`{name}`" for name in STORAGES}


def test_every_setting_that_the_page_names_exists():
    named = set(re.findall(r"`([A-Z]+(?:\.[A-Z_]+)+)", PAGE))
    assert {"DATA.STORAGE", "MODEL.TYPE"} <= named
    assert named <= dict(flatten(get_default_config())).keys()


def test_the_numbers_of_classes_are_those_of_the_lists():
    assert (len(wordnet_ids("imagenet-1k")), len(wordnet_ids("imagenet-22k"))) == (1000, 21841)
    assert "| `imagenet` | 1,000 |" in PAGE and "| `imagenet22k` | 21,841 |" in PAGE


@pytest.mark.parametrize("tool", [prepare_imagenet, make_shards])
def test_the_commands_of_the_tools_are_understood(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = re.findall(rf"python tools/{tool.NAME}\.py((?:[^\n\\]|\\\n)+)\n", PAGE)
    assert len(found) == 1
    assert tool.main(shlex.split(found[0].replace("\\\n", " "))) == 2  # the archives are not here
    errors = capsys.readouterr().err
    assert errors.startswith(f"{tool.NAME}: error: ") and "usage" not in errors
