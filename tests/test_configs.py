"""Configs of detection and segmentation alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from tests.config_facts import ROOT, leaves


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_configs_are_found_from_any_directory(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    configs = ROOT / task / "configs"
    config = Config.fromfile(configs / f"{min(leaves(configs))}.py")
    assert config.custom_imports.imports == [
        "internimage.integrations.openmmlab",
        f"internimage.integrations.openmmlab.{task}",
    ]
