"""Images and masks checked before they are trained on: each fault found, named and counted."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.fileio import list_dir_or_file
from PIL import Image

from internimage.integrations.openmmlab.data.mask_check import (
    MaskReport,
    check_masks,
    require_masks,
)
from internimage.integrations.openmmlab.data.mask_pairs import files_below

CLASSES = ("road", "house", "tree")
SIZE = (6, 4)  # width and height
SIDEWAYS = 6


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images, one of them in a sub-folder, whose masks have a row of each class."""
    (tmp_path / "masks" / "town").mkdir(parents=True)
    (tmp_path / "images" / "town").mkdir(parents=True)
    for name in ("0", "1", "2", "town/3"):
        Image.effect_noise(SIZE, 60).convert("RGB").save(tmp_path / "images" / f"{name}.jpg")
        put(tmp_path, name, rows(0, 1, 2, 0))
    return tmp_path


def rows(*labels: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask with a row of each label."""
    return np.repeat(np.array(labels, dtype=dtype)[:, None], SIZE[0], axis=1)


def put(data: Path, name: str, mask: np.ndarray) -> Path:
    path = data / "masks" / f"{name}.png"
    Image.fromarray(mask).save(path, format="TIFF" if mask.dtype == np.int32 else "PNG")
    return path


def check(data: Path, **settings: object) -> MaskReport:
    return check_masks(data / "images", data / "masks", **{"classes": CLASSES, **settings})


def kinds(report: MaskReport) -> dict[str, int]:
    return {fault.kind: fault.count for fault in report.faults}


def example(report: MaskReport, kind: str) -> str:
    (fault,) = [fault for fault in report.faults if fault.kind == kind]
    return fault.examples[0]


def test_a_whole_data_set_has_no_fault_and_its_pixels_are_counted(data: Path):
    put(data, "1", rows(0, 0, 255, 0))
    report = check(data)
    assert report.faults == ()
    assert (report.num_images, report.num_read) == (4, 4)
    assert report.pixels == {"road": 3 * 12 + 18, "house": 3 * 6, "tree": 3 * 6}
    assert report.masks_with == {"road": 4, "house": 3, "tree": 3}
    assert report.ignored == 6
    assert report.shares["road"] == pytest.approx(54 / 90)


def _palette(data: Path) -> None:
    mask = Image.fromarray(rows(0, 1, 2, 0), mode="P")
    mask.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    mask.save(data / "masks" / "0.png")


def _turned(data: Path) -> None:
    image = Image.new("RGB", SIZE[::-1])
    exif = image.getexif()
    exif[274] = SIDEWAYS
    image.save(data / "images" / "0.jpg", exif=exif)


@pytest.mark.parametrize(
    "change",
    [
        _palette,
        lambda data: put(data, "0", rows(0, 1, 2, 255, dtype=np.uint16)),
        lambda data: put(data, "0", rows(0, 1, 2, 2, dtype=np.int32)),
        _turned,
        lambda data: (data / "masks" / ".DS_Store").write_text(""),
        lambda data: (data / "images" / "notes.txt").write_text(""),
    ],
    ids=["palette", "16 bits", "32 bits", "an image turned by EXIF", "hidden", "no image"],
)
def test_what_a_training_reads_rightly_is_no_fault(data: Path, change):
    change(data)
    assert check(data, decode=True).faults == ()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _lossy(data: Path) -> None:
    Image.fromarray(rows(0, 1, 2, 0)).save(data / "masks" / "1.png", format="JPEG")


STOPPING = {
    "missing mask": (lambda data: (data / "masks" / "town" / "3.png").unlink(), "town/3.jpg"),
    "unreadable image": (lambda data: _truncate(data / "images" / "1.jpg"), "images/1.jpg"),
    "unreadable mask": (lambda data: _truncate(data / "masks" / "1.png"), "masks/1.png"),
    "wrong size": (
        lambda data: put(data, "1", rows(0, 1, 2, 0).T.copy()),
        "masks/1.png is 4x6, its image 6x4",
    ),
    "colour mask": (
        lambda data: put(data, "1", np.zeros((*SIZE[::-1], 4), dtype=np.uint8)),
        "masks/1.png is RGBA",
    ),
    "lossy mask": (_lossy, "masks/1.png"),
    "label over 255": (
        lambda data: put(data, "1", rows(0, 1, 2, 300, dtype=np.uint16)),
        "masks/1.png has 300",
    ),
    "unknown label": (
        lambda data: put(data, "1", rows(0, 3, 3, 7)),
        "masks/1.png has 3 (12 pixels), 7 (6 pixels); the 3 classes are 0-2",
    ),
}


@pytest.mark.parametrize("kind", STOPPING)
def test_what_would_stop_or_spoil_a_training_is_found_and_raised(data: Path, kind):
    change, said = STOPPING[kind]
    change(data)
    report = check(data, decode=True)
    assert kinds(report) == {kind: 1}
    assert [fault.kind for fault in report.stopping] == [kind]
    assert said in example(report, kind)
    if kind != "unreadable image":  # of which the check before a training reads the header alone
        with pytest.raises(ValueError, match=f"require_masks: .*1 x {kind}: .*check_masks.py"):
            require_masks(data / "images", data / "masks", classes=CLASSES)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "unreadable image"), (b"<html>not found</html>" * 9, "unreadable image")],
    ids=["empty", "a web page"],
)
def test_a_file_that_is_no_image_is_found_by_its_header(data: Path, content, kind):
    (data / "images" / "2.jpg").write_bytes(content)
    (data / "masks" / "2.png").write_bytes(content)
    assert kinds(check(data)) == {kind: 1, "unreadable mask": 1}


def test_float_masks_are_told_from_labels(data: Path):
    mask = data / "masks" / "0.png"
    mask.unlink()
    Image.fromarray(rows(0, 1, 2, 0, dtype=np.float32)).save(mask, format="TIFF")
    assert kinds(check(data)) == {"float mask": 1}


def test_with_the_zero_reduced_labels_count_from_one(data: Path):
    for name in ("0", "1", "2", "town/3"):
        put(data, name, rows(0, 1, 2, 3))
    report = check(data, reduce_zero_label=True)
    assert report.faults == ()
    assert report.ignored == 4 * 6
    assert report.pixels == dict.fromkeys(CLASSES, 4 * 6)
    put(data, "0", rows(4, 254, 255, 1))
    said = example(check(data, reduce_zero_label=True), "unknown label")
    assert "4 (6 pixels), 254 (6 pixels); the 3 classes are 1-3" in said


def test_another_label_to_ignore_makes_255_an_unknown_one(data: Path):
    put(data, "0", rows(0, 1, 9, 255))
    report = check(data, ignore_index=9)
    assert report.ignored == 6
    assert "has 255 (6 pixels)" in example(report, "unknown label")


def test_masks_in_black_and_white_are_no_labels(data: Path):
    for name in ("0", "1", "2", "town/3"):
        put(data, name, rows(0, 255, 255, 0))
    assert "black and white" in kinds(check(data, classes=("sky", "bird")))
    assert kinds(check(data, classes=("sky",))) == {}  # one class and what is ignored
    put(data, "1", rows(0, 255, 1, 0))
    assert kinds(check(data, classes=("sky", "bird"))) == {}


def test_masks_in_black_and_white_behind_which_others_come_are_no_fault(data: Path):
    for name in ("0", "1", "2"):
        put(data, name, rows(0, 255, 255, 0))
    assert kinds(check(data, limit=2)) == {}  # the last one has other labels
    put(data, "town/3", rows(0, 255, 0, 0))
    report = check(data, limit=2)
    assert kinds(report) == {"black and white": 1}
    assert report.num_read == 2


def test_masks_that_are_ignored_everywhere_are_left_out_and_all_of_them_stop(data: Path):
    put(data, "1", rows(255, 255, 255, 255))
    report = check(data)
    assert kinds(report) == {"ignored mask": 1}
    assert report.stopping == ()
    for name in ("0", "2", "town/3"):
        put(data, name, rows(255, 255, 255, 255))
    report = check(data)
    assert kinds(report) == {"ignored mask": 4, "nothing labelled": 1}
    assert [fault.kind for fault in report.stopping] == ["nothing labelled"]


def test_a_class_that_never_occurs_and_a_large_ignored_share_are_worth_knowing(data: Path):
    for name in ("0", "1", "2", "town/3"):
        put(data, name, rows(255, 255, 255, 1))
    report = check(data)
    assert kinds(report) == {"much ignored": 1, "class without pixels": 2}
    assert example(report, "much ignored") == "75%"
    assert example(report, "class without pixels") == "road"


def test_images_of_another_suffix_and_masks_of_no_image_are_left_out(data: Path):
    (data / "images" / "2.jpg").rename(data / "images" / "2.JPG")
    report = check(data)
    assert kinds(report) == {"other suffix": 1, "mask without image": 1}
    assert report.num_images == 3
    assert example(report, "other suffix").endswith("images/2.JPG")
    assert example(report, "mask without image").endswith("masks/2.png")


def test_hidden_folders_are_read_as_a_training_reads_them(data: Path):
    (data / "images" / ".thumbnails").mkdir()
    for name in (".thumbnails/0.jpg", ".hidden.jpg"):
        (data / "images" / name).write_bytes((data / "images" / "0.jpg").read_bytes())
    read = list_dir_or_file(str(data / "images"), list_dir=False, suffix=".jpg", recursive=True)
    assert set(files_below(data / "images")) == set(read)
    report = check(data)
    assert kinds(report) == {"missing mask": 1}
    assert ".thumbnails/0.jpg" in example(report, "missing mask")


def test_an_empty_folder_stops(data: Path):
    report = check(data, img_suffix=".bmp")
    assert [fault.kind for fault in report.stopping] == ["no images"]
    assert "images/*.bmp" in example(report, "no images")


def test_images_and_masks_may_share_a_folder(data: Path):
    for path in (data / "masks").rglob("*.png"):
        target = data / "images" / path.relative_to(data / "masks")
        path.rename(target.with_name(f"{path.stem}_mask.png"))
    report = check_masks(
        data / "images", data / "images", classes=CLASSES, seg_map_suffix="_mask.png"
    )
    assert report.faults == ()
    assert report.num_read == 4


def test_a_list_of_names_takes_those_and_finds_the_missing(data: Path):
    report = check(data, names=["town/3", "0", "9"])
    assert kinds(report) == {"missing image": 1}
    assert (report.num_images, report.num_read) == (3, 2)


def test_a_limit_looks_into_the_first_and_says_nothing_of_the_rest(data: Path):
    put(data, "0", rows(255, 255, 255, 255))
    put(data, "2", rows(9, 9, 9, 9))
    (data / "masks" / "town" / "3.png").unlink()
    report = check(data, limit=1)
    assert kinds(report) == {"missing mask": 1, "ignored mask": 1}
    assert report.num_read == 1
    assert "unknown label" in kinds(check(data, limit=3))


def test_the_work_goes_on_pair_by_pair_in_the_order_of_names(data: Path):
    for name in ("0", "1", "2", "town/3"):
        put(data, name, rows(8, 8, 8, 8))
    done = []
    report = check(data, workers=3, advance=done.append)
    assert done == [1] * 4
    (fault,) = report.faults[:1]
    assert fault.count == 4
    assert [Path(text.split()[0]).name for text in fault.examples] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": ()}, "expected 1 to 255 classes, got 0"),
        ({"img_suffix": ""}, "expected img_suffix"),
        ({"limit": 0}, "expected limit >= 1, got 0"),
    ],
)
def test_bad_settings_are_told(data: Path, settings, said):
    with pytest.raises(ValueError, match=said):
        check(data, **settings)


def test_a_missing_folder_is_told(data: Path):
    with pytest.raises(ValueError, match="expected a folder of masks, got no folder .*nowhere"):
        check_masks(data / "images", data / "nowhere", classes=CLASSES)
