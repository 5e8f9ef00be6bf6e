"""One's own images in two halves."""

from pathlib import Path

import pytest
from PIL import Image

from classification.config import get_default_config
from classification.data.storage import open_storage
from tools.split_folder import main, split


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, count in (("cat", 20), ("dog", 10), ("rare bird", 2)):
        for index in range(count):
            path = tmp_path / "photos" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (index, count, 0)).save(path)
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.mark.parametrize("flags", [[], ["--copy"]])
def test_each_class_has_its_share_of_both_halves(flags, photos, tmp_path, capsys):
    out = tmp_path / "data"
    assert main([str(photos), "--out", str(out), *flags]) == 0
    assert "train: 25 images in 3 classes" in capsys.readouterr().out
    config = get_default_config()
    config.DATA.DATA_PATH = str(out)
    sets = open_storage(config)
    assert sets.class_names == ("cat", "dog", "rare bird")
    assert [sets.train.labels.tolist().count(label) for label in range(3)] == [16, 8, 1]
    assert [sets.test.labels.tolist().count(label) for label in range(3)] == [4, 2, 1]
    halves = (sets.train, sets.test)
    contents = [source.read(i) for source in halves for i in range(len(source))]
    assert sorted(contents) == sorted(path.read_bytes() for path in photos.rglob("*.png"))
    is_link = {path.is_symlink() for path in out.rglob("*.png")}
    assert is_link == {not flags}


@pytest.mark.parametrize(("error", "code"), [(OSError(28, "full"), 2), (KeyboardInterrupt(), 130)])
def test_after_an_interruption_the_same_command_begins_anew(
    error, code, photos, tmp_path, monkeypatch
):
    copied = []

    def copy_few(source: Path, target: Path) -> None:
        if len(copied) == 30:  # in the second half
            raise error
        copied.append(target.write_bytes(source.read_bytes()))

    out = tmp_path / "data"
    arguments = [str(photos), "--out", str(out), "--copy"]
    with monkeypatch.context() as patch:
        patch.setattr("tools.split_folder.shutil.copyfile", copy_few)
        assert main(arguments) == code
    assert not (out / "train").exists() and not (out / "val").exists()
    (photos / "cat" / "3.png").unlink()  # what is no longer there is not kept
    assert main(arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == ["train", "val"]
    assert len(list(out.rglob("*.png"))) == 31
    assert main(arguments) == 2  # whole: nothing is written over


def test_the_split_depends_on_names_and_seed_alone():
    names = [f"cat/{index}.png" for index in range(100)]
    train, val = split(names, val_share=0.3, seed=0)
    assert (len(train), len(val)) == (70, 30) and sorted(train + val) == sorted(names)
    assert split(names[::-1], val_share=0.3, seed=0) == (train, val)
    assert split(names, val_share=0.3, seed=1) != (train, val)
    more = split([*names, "cat/new.png"], val_share=0.3, seed=0)[1]
    assert len(set(more) - set(val)) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{photos}", "--out", "{out}", "--val-share", "1"], "expected 0 < --val-share < 1"),
        (["{photos}", "--out", "{photos}"], "expected --out a new or empty folder"),
        (["{photos}/cat", "--out", "{out}"], "expected class folders in .*cat, got none"),
        (["{photos}/none", "--out", "{out}"], "expected a folder of class folders, got no folder"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, photos, tmp_path, capsys):
    places = {"photos": photos, "out": tmp_path / "data"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(errors)
    assert not (tmp_path / "data").exists()


def test_a_class_of_one_image_is_an_error(photos, tmp_path, capsys):
    (photos / "rare bird" / "1.png").unlink()
    assert main([str(photos), "--out", str(tmp_path / "data")]) == 2
    assert "expected 2 or more images a class, got rare bird/0.png alone" in capsys.readouterr().err
