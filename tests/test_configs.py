"""Configs of all tasks with OpenMMLab alike."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from mmengine.config import Config
from yapf.yapflib import yapf_api

from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
from tests.config_facts import ROOT, leaves
from tests.script_runs import run_script


@pytest.mark.parametrize(
    ("task", "package"),
    [
        ("detection", "detection"),
        ("segmentation", "segmentation"),
        ("autonomous_driving", "driving"),
    ],
)
def test_configs_are_found_from_any_directory(
    task: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    configs = ROOT / task / "configs"
    config = Config.fromfile(configs / f"{min(leaves(configs))}.py")
    assert config.custom_imports.imports == [
        "internimage.integrations.openmmlab",
        f"internimage.integrations.openmmlab.{package}",
    ]


@pytest.mark.parametrize("task", ["detection", "segmentation", "autonomous_driving"])
def test_a_config_is_printed_in_no_time_and_can_be_read_again(
    task: str, monkeypatch: pytest.MonkeyPatch
):
    configs = ROOT / task / "configs"
    config = read_config(configs / f"{min(leaves(configs))}.py")
    monkeypatch.setattr(yapf_api, "FormatCode", None)  # what takes seconds
    text = copy.deepcopy(config).pretty_text  # the runner's is a copy
    assert Config.fromstring(text, ".py").to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("task", "other"), [("detection", "segmentation"), ("segmentation", "detection")]
)
def test_a_config_of_the_other_task_is_refused_with_the_folder_whose_scripts_take_it(
    task: str, other: str
):
    config = Config.fromfile(
        ROOT / other / "configs" / f"{min(leaves(ROOT / other / 'configs'))}.py"
    )
    with pytest.raises(ValueError, match=f"expected a config of {task}.*scripts in {other}/"):
        check_task(config, ROOT / task / "configs")
    check_task(config, ROOT / other / "configs")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "test.py", "get_flops.py"])
def test_no_script_takes_a_config_of_the_other_task(script: str, tmp_path: Path):
    config = ROOT / "detection" / "configs" / f"{min(leaves(ROOT / 'detection' / 'configs'))}.py"
    checkpoint = ["weights.pth"] if script == "test.py" else []
    done = run_script(f"segmentation/{script}", str(config), *checkpoint, folder=tmp_path)
    assert done.code == 2
    assert "expected a config of segmentation" in done.errors
