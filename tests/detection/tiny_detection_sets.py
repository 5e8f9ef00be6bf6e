"""Data sets of three images in the layout and format of each data-set base."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from PIL import Image

WIDTH, HEIGHT = 96, 72
BOXES = ((8, 8, 40, 40), (50, 20, 90, 60))
"""The objects of every image: x1, y1, x2, y2, pixels; a quarter of each is cut off its mask."""

NUM_IMAGES = 3


def save_image(path: Path, seed: int) -> None:
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def polygon(box: Sequence[int]) -> list[list[float]]:
    """Return a box without its lower right quarter, as COCO's segmentation."""
    x1, y1, x2, y2 = map(float, box)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return [[x1, y1, x2, y1, x2, y, x, y, x, y2, x1, y2]]


def coco_content(
    classes: Sequence[str], labels: Sequence[int], file_name: Callable[[int], str]
) -> dict[str, Any]:
    """Return COCO's JSON for the images, with an object of each label in each."""
    images = [
        {"id": i, "file_name": file_name(i), "width": WIDTH, "height": HEIGHT}
        for i in range(1, NUM_IMAGES + 1)
    ]
    annotations = [
        {
            "id": len(BOXES) * image["id"] + j,
            "image_id": image["id"],
            "category_id": label + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": 0.75 * (box[2] - box[0]) * (box[3] - box[1]),
            "segmentation": polygon(box),
            "iscrowd": 0,
        }
        for image in images
        for j, (label, box) in enumerate(zip(labels, BOXES, strict=True))
    ]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(path: Path, content: Any) -> None:
    """Write JSON, or text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def make_coco(root: Path, config: Any, labels: Sequence[int]) -> None:
    """COCO, BDD100K and Objects365, the latter with its folders of patches."""
    kind = config.train_dataloader.dataset.type
    classes = config.get("classes") or DATASETS.get(kind).METAINFO["classes"]
    objects365 = kind == "Objects365V2Dataset"
    patch = "patch0/" if objects365 else ""
    for ann_file, prefix in (
        (config.train_ann_file, config.train_img_prefix),
        (config.val_ann_file, config.val_img_prefix),
    ):
        in_list = "images/v1/patch0/{}.jpg" if objects365 else "{}.jpg"
        write(root / ann_file, coco_content(classes, labels, in_list.format))
        for i in range(1, NUM_IMAGES + 1):
            save_image(root / prefix / f"{patch}{i}.jpg", i)


def make_lvis(root: Path, config: Any, labels: Sequence[int]) -> None:
    """LVIS: the folder of an image is in its address."""
    classes = DATASETS.get("LVISV1Dataset").METAINFO["classes"]
    for ann_file, folder in (
        (config.train_ann_file, "train2017"),
        (config.val_ann_file, "val2017"),
    ):
        content = coco_content(classes, labels, str)
        for image in content["images"]:
            name = f"{folder}/{image.pop('file_name')}.jpg"
            image["coco_url"] = f"http://images.cocodataset.org/{name}"
            image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
            save_image(root / name, image["id"])
        for category in content["categories"]:
            category |= {"image_count": 20, "instance_count": 20, "frequency": "c"}
        write(root / ann_file, content)


def make_voc(root: Path, config: Any, labels: Sequence[int]) -> None:
    """VOC: one XML an image, pixels counted from 1."""
    classes = DATASETS.get("VOCDataset").METAINFO["classes"]
    lists = [*zip(config.train_ann_file, config.train_img_prefix, strict=True)]
    for ann_file, prefix in [*lists, (config.val_ann_file, config.val_img_prefix)]:
        year = prefix.removeprefix("VOC").strip("/")
        names = [f"{year}_{i:06d}" for i in range(1, NUM_IMAGES + 1)]
        write(root / ann_file, "\n".join(names) + "\n")
        objects = "".join(
            f"<object><name>{classes[label]}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{box[0] + 1}</xmin><ymin>{box[1] + 1}</ymin>"
            f"<xmax>{box[2] + 1}</xmax><ymax>{box[3] + 1}</ymax></bndbox></object>"
            for label, box in zip(labels, BOXES, strict=True)
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        for i, name in enumerate(names):
            xml = f"<annotation>{size}{objects}</annotation>"
            write(root / prefix / "Annotations" / f"{name}.xml", xml)
            save_image(root / prefix / "JPEGImages" / f"{name}.jpg", i)


def make_openimages(root: Path, config: Any, labels: Sequence[int]) -> None:
    """OpenImages: boxes as shares of the image in a CSV, sizes in a pickle, a tree of classes."""
    identifiers = [f"/m/{i:03d}" for i in range(601)]
    rows = [(identifier, f"class {i}") for i, identifier in enumerate(identifiers)]
    annotations = root / "annotations"
    write_csv(annotations / "class-descriptions-boxable.csv", rows)
    tree = {"LabelName": "/m/root", "Subcategory": [{"LabelName": i} for i in identifiers]}
    write(annotations / "bbox_labels_600_hierarchy.json", tree)
    names = [f"{i:016x}" for i in range(1, NUM_IMAGES + 1)]
    for ann_file, prefix, metas in (
        (config.train_ann_file, config.train_img_prefix, "train"),
        (config.val_ann_file, config.val_img_prefix, "validation"),
    ):
        header = "ImageID Source LabelName Confidence XMin XMax YMin YMax IsOccluded IsTruncated"
        lines: list[Sequence[Any]] = [(*header.split(), "IsGroupOf", "IsDepiction", "IsInside")]
        for i, name in enumerate(names):
            save_image(root / prefix / f"{name}.jpg", i)
            for label, (x1, y1, x2, y2) in zip(labels, BOXES, strict=True):
                shares = (x1 / WIDTH, x2 / WIDTH, y1 / HEIGHT, y2 / HEIGHT)
                lines.append((name, "xclick", identifiers[label], 1, *shares, 0, 0, 0, 0, 0))
        write_csv(root / ann_file, lines)
        sizes = [{"filename": f"{name}.jpg", "ori_shape": (HEIGHT, WIDTH, 3)} for name in names]
        (annotations / f"{metas}-image-metas.pkl").write_bytes(pickle.dumps(sizes))
    write_csv(
        annotations / "validation-annotations-human-imagelabels-boxable.csv",
        [("ImageID", "Source", "LabelName", "Confidence")]
        + [(name, "verification", identifiers[label], 1) for name in names for label in labels],
    )


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write lines of values with commas."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def make_crowd_human(root: Path, config: Any, labels: Sequence[int]) -> None:
    """CrowdHuman: a JSON a line, boxes of the head, of the visible part and of the whole body."""
    assert set(labels) == {0}
    for ann_file, prefix, offset in (
        (config.train_ann_file, config.train_img_prefix, 0),
        (config.val_ann_file, config.val_img_prefix, NUM_IMAGES),
    ):
        lines = []
        for i in range(NUM_IMAGES):
            name = f"{offset + i},abc"
            save_image(root / prefix / f"{name}.jpg", offset + i)
            bodies = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in BOXES]
            people = [
                {"tag": "person", "fbox": body, "vbox": body, "hbox": body, "extra": {}}
                | {"head_attr": {"ignore": 0}}
                for body in bodies
            ]
            lines.append(json.dumps({"ID": name, "gtboxes": people}))
        write(root / ann_file, "\n".join(lines) + "\n")
