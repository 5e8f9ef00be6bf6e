"""Scenes of digits with boxes, masks and semantic maps."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from classification.data.digits import Digits
from tools import make_digit_scenes
from tools.make_digit_scenes import CLASSES, main

SMALL = ["--train", "6", "--val", "4", "--size", "64"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "scenes"
    assert main(["--out", str(out), *SMALL]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_boxes_and_masks_are_the_visible_pixels(scenes: Path):
    for half, count in (("train", 6), ("val", 4)):
        coco = COCO(scenes / "annotations" / f"{half}.json")
        assert [category["name"] for category in coco.cats.values()] == list(CLASSES)
        assert sorted(coco.imgs) == list(range(1, count + 1))
        for image in coco.imgs.values():
            with Image.open(scenes / half / image["file_name"]) as file:
                assert (file.mode, file.size) == ("RGB", (64, 64))
            with Image.open(scenes / "semantic" / half / image["file_name"]) as file:
                semantic = np.asarray(file)
            # Each pixel belongs to one digit at most, and the semantic map says the same.
            painted = np.zeros_like(semantic)
            for annotation in coco.imgToAnns[image["id"]]:
                mask = coco.annToMask(annotation).astype(bool)
                assert mask.sum() == annotation["area"] > 0
                assert not painted[mask].any()
                painted[mask] = annotation["category_id"]
                rows, columns = np.nonzero(mask)
                x, y, width, height = annotation["bbox"]
                assert (x, y) == (columns.min(), rows.min())
                assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
                assert annotation["iscrowd"] == 0
            assert np.array_equal(painted, semantic)


def test_the_digits_of_a_scene_stand_out_from_the_background():
    # Without texture or noise a digit is where the scene differs from it, and nowhere else.
    digits = Digits(train=False)
    for seed in range(8):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                make_digit_scenes,
                "make_background",
                lambda generator, size: np.full((size, size, 3), 90.0),
            )
            generator = np.random.default_rng(seed)
            picture, placed = make_digit_scenes.make_scene(digits, generator, size=96)
        assert placed
        front = placed[-1]
        inside = picture[front.mask].astype(float)
        paper = np.full(3, 90.0)
        luma = make_digit_scenes.LUMA
        contrast = np.abs((inside * luma).sum(1) - (paper * luma).sum()).mean()
        assert contrast > make_digit_scenes.MIN_CONTRAST / 2
        covered = np.zeros((96, 96), dtype=bool)
        for digit in placed:
            covered |= digit.mask
            assert digit.mask.sum() >= make_digit_scenes.MIN_VISIBLE * digit.area
        far = np.ones_like(covered)
        rows, columns = np.nonzero(covered)
        for row, column in zip(rows, columns, strict=True):
            far[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5] = False
        assert np.abs(picture[far].astype(float) - 90).mean() < 6  # the noise alone


def test_the_same_seed_gives_the_same_bytes_and_another_others(scenes: Path, tmp_path: Path):
    assert main(["--out", str(tmp_path / "again"), *SMALL]) == 0
    assert contents(tmp_path / "again") == contents(scenes)
    assert main(["--out", str(tmp_path / "other"), *SMALL, "--seed", "1"]) == 0
    assert contents(tmp_path / "other").keys() == contents(scenes).keys()
    assert contents(tmp_path / "other")["train/00000.png"] != contents(scenes)["train/00000.png"]


def test_a_scene_does_not_depend_on_how_many_there_are(scenes: Path, tmp_path: Path):
    few = ["--train", "2", "--val", "1", "--size", "64"]
    assert main(["--out", str(tmp_path / "few"), *few]) == 0
    for name, data in contents(tmp_path / "few").items():
        if name.endswith(".png"):
            assert data == contents(scenes)[name]


def test_the_halves_are_of_different_scans(scenes: Path, tmp_path: Path, monkeypatch):
    halves = []

    def watch(*, train: bool) -> Digits:
        halves.append((train, digits := Digits(train=train)))
        return digits

    monkeypatch.setattr(make_digit_scenes, "Digits", watch)
    assert main(["--out", str(tmp_path / "out"), *SMALL]) == 0
    ((_, train), (_, val)) = sorted(halves, key=lambda half: not half[0])
    assert not set(train.indices) & set(val.indices)
    assert contents(scenes)["train/00000.png"] != contents(scenes)["val/00000.png"]


def test_what_was_interrupted_does_not_appear_and_the_next_run_begins_anew(tmp_path, monkeypatch):
    out = tmp_path / "scenes"

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(make_digit_scenes, "write_json", stop)
        assert main(["--out", str(out), *SMALL]) == 130
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".scenes.unfinished").mkdir()  # as a power cut leaves it
    assert main(["--out", str(out), *SMALL]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(make_digit_scenes, "write_json", stop)
        assert main(["--out", str(out), *SMALL, "--seed", "1", "--overwrite"]) == 130
    assert contents(out) == before


def test_overwrite_replaces_scenes_and_nothing_else(tmp_path: Path, capsys):
    out = tmp_path / "scenes"
    assert main(["--out", str(out), *SMALL]) == 0
    before = contents(out)
    assert main(["--out", str(out), *SMALL, "--seed", "1"]) == 2
    assert "which holds annotations, semantic, train, val; --overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert main(["--out", str(out), *SMALL, "--seed", "1", "--overwrite"]) == 0
    assert contents(out) != before
    (out / "mine.txt").write_text("mine")
    assert main(["--out", str(out), *SMALL, "--overwrite"]) == 2
    assert "with mine.txt as well; remove that yourself" in capsys.readouterr().err
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "0"], "expected --train >= 1, got 0"),
        (["--val", "-1"], "expected --val >= 1, got -1"),
        (["--size", "16"], "expected --size >= 48, got 16"),
        (["--seed", "-1"], "expected --seed >= 0, got -1"),
    ],
)
def test_a_mistake_is_one_line(flags, message, tmp_path: Path, capsys):
    assert main(["--out", str(tmp_path / "out"), *flags]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and message in errors
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_an_error(tmp_path: Path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main(["--out", str(tmp_path / "out"), *SMALL]) == 2
    assert "expected --out a folder, got the file" in capsys.readouterr().err


def test_the_folder_holds_four_parts_and_annotations_count_from_one(scenes: Path):
    assert sorted(path.name for path in scenes.iterdir()) == sorted(make_digit_scenes.FOLDERS)
    content = json.loads((scenes / "annotations" / "train.json").read_text())
    numbers = [annotation["id"] for annotation in content["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))  # 0 would confuse COCO's evaluation
