"""Files that cannot be read: named, counted, and too many of them end the run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Two classes of twenty training and ten test images each, some of which are text."""

    def make(*, bad_train: int = 0, bad_val: int = 0) -> Path:
        for half, count, bad in (("train", 20, bad_train), ("val", 10, bad_val)):
            for label, colour in (("a", "red"), ("b", "blue")):
                folder = tmp_path / "data" / half / label
                folder.mkdir(parents=True)
                for i in range(count):
                    Image.new("RGB", (16, 16), colour).save(folder / f"{i:02}.png")
            for i in range(bad):
                (tmp_path / "data" / half / "a" / f"{i:02}.png").write_text("no image")
        return tmp_path / "data"

    return make


@pytest.fixture
def train(small_yaml: Path, tmp_path: Path, exit_code_here) -> Callable[..., int]:
    def run(data: Path, share: float) -> int:
        flags = ["--cfg", small_yaml, "--output", tmp_path, "--dataset", "folder"]
        settings = ["DATA.BATCH_SIZE", 8, "TRAIN.EPOCHS", 1, "DATA.MAX_BAD_SHARE", share]
        return exit_code_here(*flags, "--data-path", data, "--opts", *settings)

    return run


def test_a_few_are_named_in_the_log_and_counted_in_the_records(
    make_folder: MakeFolder, train: Callable[..., int], tmp_path: Path
):
    data = make_folder(bad_train=3, bad_val=2)
    assert train(data, 0.2) == 0
    log = (tmp_path / "small" / "log_rank0.txt").read_text()
    for i in range(3):
        assert log.count(f"unreadable, another image took its place: {data}/train/a/0{i}.png") == 1
    for i in range(2):
        assert f"unreadable, left out of the test: {data}/val/a/0{i}.png" in log
    summary = json.loads((tmp_path / "small" / "summary.json").read_text())
    assert (summary["num_test_images"], summary["bad_test_files"]) == (18, 2)
    header, row = (tmp_path / "small" / "metrics.csv").read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["bad_files"] == "5"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"bad_train": 3}, "of 40 training files cannot be read"),
        ({"bad_val": 3}, "3 of 20 test files cannot be read"),
    ],
)
def test_too_many_end_the_run_with_a_list(
    make_folder: MakeFolder, train: Callable[..., int], capsys, bad: dict[str, int], message: str
):
    data = make_folder(**bad)
    assert train(data, 0.02) == 2
    printed = capsys.readouterr().err
    assert message in printed and "more than DATA.MAX_BAD_SHARE = 0.02" in printed
    assert f"{data}/{'train' if 'bad_train' in bad else 'val'}/a/0" in printed
    assert printed.count("\n") == 1


def test_the_checkpoint_before_the_test_is_kept(
    make_folder: MakeFolder, train: Callable[..., int], tmp_path: Path
):
    assert train(make_folder(bad_val=3), 0.02) == 2
    assert (tmp_path / "small" / "ckpt_epoch_1.pth").exists()
