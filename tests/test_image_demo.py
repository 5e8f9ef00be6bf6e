"""What detection/image_demo.py and segmentation/image_demo.py promise alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.image_demos import make_folder, run_demo

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("detection", "segmentation")
FLAGS = {
    "detection": ("--out", "--device", "--palette", "--score-thr", "--async-test"),
    "segmentation": ("--out", "--device", "--palette", "--opacity"),
}
MODEL = ("config.py", "model.pth")
# What is written for b.png.
LEFT = {"detection": ["b.json", "b.png"], "segmentation": ["b.json", "b.png", "b_labels.png"]}
OLD_CONFIG = """
model = dict(type="Model", pretrained=None)
data = dict(samples_per_gpu=2, test=dict(type="DataSet"))
optimizer = dict(type="AdamW")
"""
# Task, the command line, what the error says.
MISTAKES = [
    *(
        (task, arguments, message)
        for task in TASKS
        for arguments, message in (
            (("none.jpg", *MODEL), "expected an existing image file, got none.jpg"),
            (("photos", "none.py", "model.pth"), "expected a config file, got none at none.py"),
            (("photos", "config.py"), "the following arguments are required: checkpoint"),
            (("photos", *MODEL, "--palete", "voc"), "did you mean --palette?"),
        )
    ),
    ("detection", ("photos", "old.py", "model.pth"), "mmdet"),
    ("segmentation", ("photos", "old.py", "model.pth"), "mmseg"),
    ("detection", ("photos", *MODEL, "--score-thr", "7"), "from 0 to 1, got 7"),
    ("segmentation", ("photos", *MODEL, "--opacity", "7"), "from 0 to 1, got 7"),
    ("segmentation", ("photos", *MODEL, "--palette", "vos"), "invalid choice: 'vos'"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folders = {task: make_folder(task, tmp_path_factory.mktemp(task)) for task in TASKS}
    for folder in folders.values():
        (folder / "old.py").write_text(OLD_CONFIG)
    return folders


@pytest.mark.parametrize("task", TASKS)
def test_a_single_image_goes_into_the_folder_of_out(folders, task, monkeypatch, capsys):
    code, _, err = run_demo(
        task, folders[task], monkeypatch, capsys, "photos/b.png", *MODEL, "--out", "there"
    )
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (folders[task] / "there").iterdir()) == LEFT[task]


@pytest.mark.parametrize(("task", "arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    folders, task, arguments, message, monkeypatch, capsys
):
    code, _, err = run_demo(task, folders[task], monkeypatch, capsys, *arguments)
    assert code == 2
    assert err.count("\n") == 1 and err.startswith("image_demo.py: ")
    assert message in err


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_it_runs_as_a_script_from_any_folder(tmp_path, task):
    script = ROOT / task / "image_demo.py"
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [flag for flag in FLAGS[task] if flag not in done.stdout] == []
