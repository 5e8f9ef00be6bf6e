"""The named data sets: each official layout, made small; and what is wrong with some."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data import build_sets
from classification.data.class_lists import class_words, wordnet_ids
from classification.data.imagenet import build_imagenet, build_imagenet22k
from classification.data.inat import build_inat18
from classification.data.places import build_places205, build_places365
from internimage.imagenet22k import imagenet_1k_rows

IDS_1K, IDS_22K = wordnet_ids("imagenet-1k"), wordnet_ids("imagenet-22k")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    Image.effect_noise((8, 8), 60).convert("RGB").save(path)
    return path


@pytest.fixture
def place(image: Path, tmp_path: Path) -> Callable[..., None]:
    """Puts hard links to one image below tmp_path/data."""

    def put(*paths: str) -> None:
        for name in paths:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(image, path)

    return put


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], None]:
    """Writes a text, lines or JSON below tmp_path/data."""

    def put(name: str, content: Any) -> None:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(content) if path.suffix in (".txt", ".csv") else json.dumps(content)
        path.write_text(text)

    return put


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., CfgNode]:
    def make(dataset: str, **data: Any) -> CfgNode:
        config = get_default_config()
        config.DATA.update({"DATASET": dataset, "DATA_PATH": str(tmp_path / "data"), **data})
        return config

    return make


def folders(half: str, names: Iterable[str]) -> list[str]:
    return [f"{half}/{name}/x.jpg" for name in names]


def test_imagenet_has_1000_classes_in_the_released_order(place, settings, image):
    place(*folders("train", IDS_1K), *folders("val", IDS_1K))
    sets = build_imagenet(settings("imagenet"))
    assert sets.class_names == class_words("imagenet-1k")
    assert sets.class_names[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    for source in (sets.train, sets.test):
        assert source.labels.tolist() == list(range(1000))
        assert source.name(850).endswith("n04399382/x.jpg")
        assert source.read(850) == image.read_bytes()


def test_imagenet_reads_the_lists_of_the_original(place, write, settings):
    place("train/n01440764/a b.JPEG", *folders("val", IDS_1K))
    write("meta_data/train.txt", ["n01440764/a b.JPEG 0", "n01440764/a b.JPEG 999"])
    sets = build_imagenet(settings("imagenet"))
    assert sets.train.labels.tolist() == [0, 999]
    assert sets.test.labels.tolist() == list(range(1000))
    assert sets.class_names == class_words("imagenet-1k")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (IDS_1K[1:], "expected 1000 classes of DATA.DATASET imagenet in .*data, got 999"),
        ([*IDS_1K[1:], "zebras"], "the 1000 WordNet ids, n01440764 to .* such as zebras .*folder"),
    ],
)
def test_other_classes_are_not_imagenet(names, message, place, settings):
    place(*folders("train", names), *folders("val", names))
    with pytest.raises(ValueError, match=message):
        build_imagenet(settings("imagenet"))


@pytest.mark.parametrize("labels", [IDS_22K, range(21841)], ids=["ids", "numbers"])
def test_imagenet22k_reads_the_label_file(labels, place, write, settings):
    place("train/x.jpg", *folders("val", IDS_1K))
    write("22k_label.txt", [f"x.jpg {label}" for label in labels])
    sets = build_imagenet22k(settings("imagenet22k"))
    assert sets.train.labels.tolist() == list(range(21841))
    assert sets.train.name(21840).endswith("train/x.jpg")
    assert sets.class_names[0] == "organism, being" and len(sets.class_names) == 21841
    # The validation images of ImageNet-1k are those of the rows that 1k takes of a 22k head.
    assert sets.test.labels.tolist() == imagenet_1k_rows()


@pytest.mark.slow
def test_imagenet22k_reads_class_folders(place, settings):
    place(*folders("train", IDS_22K), *folders("val", [IDS_22K[7], IDS_22K[21840]]))
    sets = build_imagenet22k(settings("imagenet22k"))
    assert np.array_equal(sets.train.labels, np.arange(21841))
    assert sets.test.labels.tolist() == [7, 21840]


@pytest.mark.parametrize(
    ("lines", "val", "message"),
    [
        (["x.jpg n00004475", "x.jpg n99999999"], IDS_22K[0], "line 2, got 'x.jpg n99999999'"),
        (["x.jpg 21841"], IDS_22K[0], r"0 to 21840\) in .*22k_label.txt, line 1"),
        (["x.jpg"], IDS_22K[0], "expected a path and a class"),
        ([], IDS_22K[0], "expected lines of a path and a class"),
        (["y.jpg 3"], IDS_22K[0], "expected the files of .*22k_label.txt in .*train or .*y.jpg"),
        (["x.jpg 3"], "zebras", "expected WordNet ids of ImageNet-22k as classes in .*val.*zebras"),
    ],
)
def test_a_mistake_in_imagenet22k_is_an_error(lines, val, message, place, write, settings):
    place("train/x.jpg", *folders("val", [val]))
    write("22k_label.txt", lines)
    with pytest.raises(ValueError, match=message):
        build_imagenet22k(settings("imagenet22k"))


def inat_json(num_categories: int = 8142) -> dict[str, Any]:
    """Two images, their categories in no order."""
    categories = [{"id": i, "name": f"species {i}"} for i in reversed(range(num_categories))]
    return {
        "categories": categories,
        "images": [
            {"id": 31, "file_name": "train_val2018/Aves/8141/b.jpg"},
            {"id": 7, "file_name": "train_val2018/Fungi/5/a.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5},
            {"id": 2, "image_id": 31, "category_id": 8141},
        ],
    }


LOCATIONS = [
    {"id": 31, "lat": 0.0, "lon": 90.0, "date": "2017-03-31 10:00:00+00:00", "user_id": 4},
    {"id": 99, "lat": 1.0, "lon": 1.0, "date": "2017-01-01"},
    {"id": 7, "lat": None, "lon": 12.0, "date": None},
]


@pytest.fixture
def inat(place, write) -> None:
    place("train_val2018/Fungi/5/a.jpg", "train_val2018/Aves/8141/b.jpg")
    for half in ("train2018", "val2018"):
        write(f"{half}.json", inat_json())
        write(f"{half}_locations.json", LOCATIONS)


def test_inat18_gives_time_and_place_to_the_model_that_takes_them(inat, settings, image):
    config = settings("inat18")
    config.MODEL.TYPE = "intern_image_meta_former"
    sets = build_inat18(config)
    assert len(sets.class_names) == 8142 and sets.class_names[5] == "species 5"
    for source in (sets.train, sets.test):
        assert source.labels.tolist() == [5, 8141]
        assert source.read(1) == image.read_bytes() and source.name(1).endswith("8141/b.jpg")
        times, places = source.meta
        assert times.dtype == places.dtype == np.float32
        np.testing.assert_allclose(times, [[0, 0, 0, 0], [1, 0, 0, 0]], atol=1e-6)
        np.testing.assert_allclose(places, [[0, 0, 0], [0, 1, 0]], atol=1e-6)


def test_inat18_without_the_meta_head_reads_no_locations(inat, settings, tmp_path):
    for path in (tmp_path / "data").glob("*_locations.json"):
        path.unlink()
    assert build_inat18(settings("inat18")).train.meta == ()
    config = settings("inat18")
    config.MODEL.TYPE = "intern_image_meta_former"
    with pytest.raises(ValueError, match="expected the file train2018_locations.json in DATA.DATA"):
        build_inat18(config)


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in inat_json().items() if name != key}


@pytest.mark.parametrize(
    ("half", "content", "message"),
    [
        ("train2018", inat_json(8141 + 2), "expected the categories of .*train2018.json in"),
        ("val2018", inat_json(8142) | {"categories": []}, "image 7 of category 5"),
        ("val2018", _without("annotations"), "official val2018.json in .*KeyError: 'annotations'"),
        ("val2018", _without("images"), "KeyError: 'images'"),
        ("val2018", [], "expected categories, images and annotations"),
        ("val2018", inat_json() | {"annotations": [{"image_id": 7}]}, "KeyError: 'category_id'"),
        ("val2018", inat_json() | {"annotations": []}, "expected images >= 1, got 0"),
        (
            "val2018",
            inat_json() | {"images": [{"id": 7, "file_name": 5}]},
            "expected each file_name in .* a text, got 5",
        ),
        ("val2018_locations", {"id": 7}, "expected a list of id, lat, lon and date in"),
        ("val2018_locations", [{"lat": 7}], "KeyError: 'id'"),
    ],
)
def test_a_mistake_in_inat18_is_an_error(half, content, message, inat, write, settings):
    write(f"{half}.json", content)
    config = settings("inat18")
    config.MODEL.TYPE = "intern_image_meta_former"
    with pytest.raises(ValueError, match=message):
        build_inat18(config)


def test_json_that_is_cut_off_and_other_numbers_of_species_are_errors(
    inat, write, settings, tmp_path
):
    for half in ("train2018", "val2018"):
        content = inat_json(8142 + 3)
        write(f"{half}.json", content)
    with pytest.raises(ValueError, match="expected 8142 categories in .*train2018.json, got 8145"):
        build_inat18(settings("inat18"))
    (tmp_path / "data" / "val2018.json").write_text('{"categories": [')
    with pytest.raises(ValueError, match="expected JSON in .*val2018.json"):
        build_inat18(settings("inat18"))
    (tmp_path / "data" / "train2018.json").unlink()
    with pytest.raises(ValueError, match="expected the file train2018.json in DATA.DATA_PATH"):
        build_inat18(settings("inat18"))


CATEGORIES_365 = ["/a/airfield 0", "/a/apartment_building/outdoor 1"] + [
    f"/z/place_{index} {index}" for index in range(2, 365)
]


def write_places365(write, place, prefix: str = "", size: str = "256") -> None:
    write(f"{prefix}categories_places365.txt", CATEGORIES_365[::-1])
    train = ["/a/airfield/1.jpg 0", "/z/place_364/2.jpg 364"]
    write(f"{prefix}places365_train_standard.txt", train)
    write(f"{prefix}places365_val.txt", ["Places365_val_00000001.jpg 1"])
    place(f"data_{size}/a/airfield/1.jpg", f"data_{size}/z/place_364/2.jpg")
    place(f"val_{size}/Places365_val_00000001.jpg")


@pytest.mark.parametrize(
    ("prefix", "size"), [("", "256"), ("filelist_places365-standard/", "large")]
)
def test_places365_reads_the_official_files(prefix, size, write, place, settings, image):
    write_places365(write, place, prefix, size)
    sets = build_places365(settings("places365"))
    assert sets.class_names[:3] == ("airfield", "apartment_building/outdoor", "place_2")
    assert len(sets.class_names) == 365
    assert sets.train.labels.tolist() == [0, 364] and sets.test.labels.tolist() == [1]
    assert sets.train.read(1) == sets.test.read(0) == image.read_bytes()


def write_places205(write, place, separator: str, folder: str) -> None:
    train = [f"z/place_{index}/x.jpg{separator}{index}" for index in range(2, 205)]
    first = [f"a/abbey/gsun_1.jpg{separator}0", f"a/apse/indoor/gsun_2.jpg{separator}1"]
    write("trainvalsplit_places205/train_places205.csv", first + train)
    write("trainvalsplit_places205/val_places205.csv", [f"a/abbey/gsun_3.jpg{separator}0"])
    place(f"{folder}/a/abbey/gsun_1.jpg", f"{folder}/a/abbey/gsun_3.jpg")


@pytest.mark.parametrize(
    ("separator", "folder"),
    [(" ", "data/vision/torralba/deeplearning/images256"), (",", "images256")],
)
def test_places205_reads_the_official_files(separator, folder, write, place, settings, image):
    write_places205(write, place, separator, folder)
    sets = build_places205(settings("places205"))
    assert sets.class_names[:3] == ("abbey", "apse/indoor", "place_2")
    assert sets.train.labels.tolist() == list(range(205)) and sets.test.labels.tolist() == [0]
    assert sets.train.read(0) == sets.test.read(0) == image.read_bytes()


@pytest.mark.parametrize(("build", "number"), [(build_places365, 365), (build_places205, 205)])
def test_places_may_be_in_class_folders(build, number, place, settings):
    names = [f"place_{index:03}" for index in range(number)]
    place(*folders("train", names), *folders("val", names))
    sets = build(settings(f"places{number}"))
    assert sets.class_names == tuple(names)
    place(*folders("train", ["more"]), *folders("val", ["more"]))
    with pytest.raises(
        ValueError, match=f"expected {number} classes .*, got {number + 1}; the off"
    ):
        build(settings(f"places{number}"))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("places365_train_standard.txt", ["/a/airfield/1.jpg 365"], "0 <= label < 365 in .*line 1"),
        ("places365_val.txt", ["Places365_val_00000001.jpg"], "a path and a whole number in"),
        ("categories_places365.txt", CATEGORIES_365[1:], "classes 0 to 364 once each .*364 lines"),
        ("categories_places365.txt", None, "expected the official file .*categories_places365.txt"),
    ],
)
def test_a_mistake_in_places365_is_an_error(name, lines, message, write, place, settings, tmp_path):
    write_places365(write, place)
    (tmp_path / "data" / name).unlink()
    if lines is not None:
        write(name, lines)
    with pytest.raises(ValueError, match=message):
        build_places365(settings("places365"))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("train", ["a/abbey/x.jpg 205"], "a class from 0 to 204 in .*train_places205.csv, line 1"),
        ("train", ["a/abbey/x.jpg 0"], "expected images of all 205 classes in .*, got 1 classes"),
        ("val", ["0"], "expected a path and a class from 0 to 204 in .*val_places205.csv, line 1"),
        ("val", None, "expected the official file .*val_places205.csv, got none"),
    ],
)
def test_a_mistake_in_places205_is_an_error(name, lines, message, write, place, settings, tmp_path):
    write_places205(write, place, " ", "images256")
    path = f"trainvalsplit_places205/{name}_places205.csv"
    (tmp_path / "data" / path).unlink()
    if lines is not None:
        write(path, lines)
    with pytest.raises(ValueError, match=message):
        build_places205(settings("places205"))


def test_places_without_its_images_is_an_error(write, settings):
    write_places365(write, lambda *paths: None)
    with pytest.raises(ValueError, match="expected the images in data_256 or data_large of .*data"):
        build_places365(settings("places365"))


@pytest.mark.parametrize(
    "build", [build_imagenet, build_imagenet22k, build_places365, build_places205]
)
def test_an_empty_folder_is_an_error_that_says_what_was_looked_for(build, settings, tmp_path):
    with pytest.raises(ValueError, match="expected DATA.DATA_PATH a folder, got .*nothing there"):
        build(settings("imagenet"))
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="expected .*train.*class folders.*got an empty folder"):
        build(settings("imagenet"))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "inat18"])
def test_a_data_set_of_official_files_has_no_other_storage(dataset, settings, tmp_path):
    with pytest.raises(ValueError, match="expected DATA.DATA_PATH a folder"):
        build_sets(settings(dataset))
    (tmp_path / "data").mkdir()
    for data in ({"STORAGE": "shards"}, {"ZIP_MODE": True}):
        with pytest.raises(ValueError, match=f"expected DATA.STORAGE auto .* beside .* {dataset}"):
            build_sets(settings(dataset, **data))


def test_a_misspelt_data_set_is_named(settings):
    with pytest.raises(ValueError, match="'places356'; did you mean places365?"):
        build_sets(settings("places356"))


@pytest.mark.parametrize("model_type", ["intern_image_meta_former", "intern_image"])
def test_inat18_trains_both_types_of_model(model_type, inat, tmp_path, exit_code_here, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "DATA: {DATASET: inat18, IMG_SIZE: 16, BATCH_SIZE: 2, NUM_WORKERS: 0}\n"
        f"MODEL: {{TYPE: {model_type}, ARCH: internimage_test_t}}\n"
        "TRAIN: {EPOCHS: 1, WARMUP_EPOCHS: 0}\n"
    )
    arguments = ["--cfg", path, "--data-path", tmp_path / "data", "--output", tmp_path / "out"]
    assert exit_code_here(*arguments) == 0
    with safe_open(tmp_path / "out" / "tiny" / "model.safetensors", framework="pt") as weights:
        has_head = any(key.startswith("meta_head") for key in weights.keys())
    assert has_head == (model_type == "intern_image_meta_former")
    assert "2 training and 2 test images" in capsys.readouterr().out
