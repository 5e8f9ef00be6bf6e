"""Every named data set in one of its official layouts, with a handful of small images."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from classification.data.class_lists import wordnet_ids

NUM_TRAIN, NUM_TEST = 8, 4
PIXELS = 40


def write_data_set(dataset: str, folder: Path) -> None:
    """Writes a data set to an empty folder."""
    if dataset.startswith("cifar"):
        _write_cifar(int(dataset.removeprefix("cifar")), folder)
    elif dataset == "inat18":
        _write_inat(folder)
    elif dataset == "places365":
        _write_places365(folder)
    elif dataset == "places205":
        names = [f"place_{index:03}" for index in range(205)]
        _write_folders(folder, names, names)
    elif dataset == "imagenet":
        _write_lists(folder, num_classes=1000)
    elif dataset == "imagenet22k":
        ids = wordnet_ids("imagenet-22k")
        lines = [f"{ids[i]}/{i}.jpg {ids[i]}" for i in range(NUM_TRAIN)]
        for i in range(NUM_TRAIN):
            _put(folder / "train" / f"{ids[i]}/{i}.jpg")
        (folder / "22k_label.txt").write_text("\n".join(lines))
        for i in range(NUM_TEST):
            _put(folder / "val" / ids[i] / "x.jpg")
    else:
        assert dataset == "folder"
        _write_folders(folder, ["cat", "dog"] * 4, ["cat", "dog"] * 2)


def _put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((PIXELS, PIXELS), 60).convert("RGB").save(path)


def _write_folders(folder: Path, train: list[str], val: list[str]) -> None:
    first = folder / "first.jpg"
    _put(first)
    for half, names in (("train", train), ("val", val)):
        for index, name in enumerate(names):
            path = folder / half / name / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(first)  # hundreds of files, one image


def _write_lists(folder: Path, num_classes: int) -> None:
    for half, count in (("train", NUM_TRAIN), ("val", NUM_TEST)):
        lines = [f"a/{index}.jpg {index * (num_classes // count)}" for index in range(count)]
        for index in range(count):
            _put(folder / half / f"a/{index}.jpg")
        (folder / "meta_data").mkdir(exist_ok=True)
        (folder / "meta_data" / f"{half}.txt").write_text("\n".join(lines))


def _write_places365(folder: Path) -> None:
    lines = [f"/p/place_{index} {index}" for index in range(365)]
    folder.mkdir()
    (folder / "categories_places365.txt").write_text("\n".join(lines))
    train = [f"/p/place_{index}/x.jpg {index}" for index in range(NUM_TRAIN)]
    val = [f"Places365_val_{index}.jpg {index}" for index in range(NUM_TEST)]
    (folder / "places365_train_standard.txt").write_text("\n".join(train))
    (folder / "places365_val.txt").write_text("\n".join(val))
    for line in train:
        _put(folder / "data_256" / line.split()[0].lstrip("/"))
    for line in val:
        _put(folder / "val_256" / line.split()[0])


def _write_inat(folder: Path) -> None:
    categories = [{"id": index, "name": f"species {index}"} for index in range(8142)]
    for half, count in (("train2018", NUM_TRAIN), ("val2018", NUM_TEST)):
        files = [f"train_val2018/Aves/{index}/{half}.jpg" for index in range(count)]
        for file in files:
            _put(folder / file)
        content = {
            "categories": categories,
            "images": [{"id": index, "file_name": file} for index, file in enumerate(files)],
            "annotations": [
                {"id": index, "image_id": index, "category_id": index} for index in range(count)
            ],
        }
        (folder / f"{half}.json").write_text(json.dumps(content))
        places = [
            {"id": index, "lat": 10.0 * index, "lon": 20.0, "date": "2017-03-31", "user_id": 4}
            for index in range(count)
        ]
        (folder / f"{half}_locations.json").write_text(json.dumps(places))


def _write_cifar(num_classes: int, folder: Path) -> None:
    if num_classes == 10:
        target, meta = folder / "cifar-10-batches-bin", "batches.meta.txt"
        names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    else:
        target, meta = folder / "cifar-100-binary", "fine_label_names.txt"
        names = ["train.bin", "test.bin"]
    target.mkdir(parents=True)
    generator = np.random.default_rng(0)
    num_labels = 1 if num_classes == 10 else 2  # coarse and fine
    for name in names:
        rows = generator.integers(0, 256, (NUM_TRAIN, num_labels + 3072), dtype=np.uint8)
        rows[:, :num_labels] %= 10
        (target / name).write_bytes(rows.tobytes())
    (target / meta).write_text("\n".join(f"thing_{index}" for index in range(num_classes)))
