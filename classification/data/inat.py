"""iNaturalist 2018: photographs of 8,142 species, with the time and the place of each.

Layout of DATA.DATA_PATH, as the official archives unpack:

    train2018.json  val2018.json                       which image is which species (COCO's format)
    train2018_locations.json  val2018_locations.json   latitude, longitude and date of each image
    train_val2018/...                                  the images
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from yacs.config import CfgNode

from classification.data.source import FileSource, ImageSets
from classification.data.storage import check_official_path
from internimage.metaformer import SPATIAL_DIM, TEMPORAL_DIM

NUM_CLASSES = 8142


def build_inat18(config: CfgNode) -> ImageSets:
    """Builds both halves; times and places are handed out to the model type that takes them.

    Raises:
        ValueError: A file is missing or not what the official one is.
    """
    root = check_official_path(config)
    with_meta = config.MODEL.TYPE == "intern_image_meta_former"
    names, train = read_half(root, "train2018", with_meta=with_meta)
    test_names, test = read_half(root, "val2018", with_meta=with_meta)
    if names != test_names:
        raise ValueError(
            f"build_inat18: expected the categories of {root / 'train2018.json'} in "
            f"{root / 'val2018.json'}, got others"
        )
    if len(names) != NUM_CLASSES:
        raise ValueError(
            f"build_inat18: expected {NUM_CLASSES} categories in {root / 'train2018.json'}, "
            f"got {len(names)}"
        )
    return ImageSets(train, test, names)


def read_half(root: Path, half: str, *, with_meta: bool) -> tuple[tuple[str, ...], FileSource]:
    """Reads the images of one half and the names of all categories.

    Args:
        root: The folder of the data set.
        half: "train2018" or "val2018".
        with_meta: Whether each image has its time (4 numbers) and its place (3 numbers).

    Raises:
        ValueError: A file is missing or not what the official one is.
    """
    path = root / f"{half}.json"
    content = _read_json(path)
    try:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        classes = {category["id"]: index for index, category in enumerate(categories)}
        names = tuple(str(category["name"]) for category in categories)
        files = {image["id"]: image["file_name"] for image in content["images"]}
        pairs = [(item["image_id"], item["category_id"]) for item in content["annotations"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "read_half: expected categories, images and annotations as in the official "
            f"{half}.json in {path}, got {type(error).__name__}: {error}"
        ) from error
    for image_id, category_id in pairs:
        if image_id not in files or category_id not in classes:
            raise ValueError(
                f"read_half: expected each annotation's image and category in {path}, "
                f"got image {image_id!r} of category {category_id!r}"
            )
        if not isinstance(files[image_id], str):
            raise ValueError(
                f"read_half: expected each file_name in {path} a text, got {files[image_id]!r}"
            )
    meta: tuple[np.ndarray, ...] = ()
    if with_meta:
        meta = _read_meta(root / f"{half}_locations.json", [pair[0] for pair in pairs])
    source = FileSource(
        root,
        [files[image_id] for image_id, _ in pairs],
        [classes[category_id] for _, category_id in pairs],
        names,
        meta=meta,
    )
    return names, source


def encode_time(date: str | None) -> tuple[float, float, float, float]:
    """Returns the month on a circle and zeros for the hour, which the head was trained without.

    Args:
        date: A date that begins with YEAR-MONTH-DAY; None or anything else where it is unknown.

    Returns:
        (sin, cos) of the month's angle, 0, 0; all zeros where the date is unknown.
    """
    match = re.match(r"\s*\d+-(\d+)-\d+", date) if isinstance(date, str) else None
    if match is None:
        return 0.0, 0.0, 0.0, 0.0
    angle = 2 * math.pi * int(match[1]) / 12
    return math.sin(angle), math.cos(angle), 0.0, 0.0


def encode_place(latitude: float | None, longitude: float | None) -> tuple[float, float, float]:
    """Returns a place as a point of the unit sphere.

    Args:
        latitude: Degrees north; None where it is unknown.
        longitude: Degrees east; None where it is unknown.

    Returns:
        (x, y, z), z towards the north pole; all zeros where the place is unknown.
    """
    if not _is_number(latitude) or not _is_number(longitude):
        return 0.0, 0.0, 0.0
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_meta(path: Path, image_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the times (I, 4) and the places (I, 3) of the images."""
    content = _read_json(path)
    try:
        known = {item["id"]: item for item in content}
        items = [known.get(image_id, {}) for image_id in image_ids]
        times = [encode_time(item.get("date")) for item in items]
        places = [encode_place(item.get("lat"), item.get("lon")) for item in items]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"read_half: expected a list of id, lat, lon and date in {path}, "
            f"got {type(error).__name__}: {error}"
        ) from error
    return (
        np.array(times, dtype=np.float32).reshape(-1, TEMPORAL_DIM),
        np.array(places, dtype=np.float32).reshape(-1, SPATIAL_DIM),
    )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(
            f"read_half: expected the file {path.name} in DATA.DATA_PATH, got no {path}"
        )
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"read_half: expected JSON in {path}, got {error}") from error
