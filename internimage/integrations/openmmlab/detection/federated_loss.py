"""Federated loss for data sets of many classes that are not labelled everywhere.

LVIS says of each image which classes it was searched for; an object of any other class may be in
the picture unmarked. Zhou et al. ("Probabilistic two-stage detection", arXiv 2103.07461) therefore
learn from few classes an image: those that it shows, and others drawn at random, common classes
more often.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from torch import Tensor


class FederatedClasses:
    """Draws the classes that an image learns from.

    Args:
        total_classes: K, the classes of the head.
        num_classes: classes an image learns from, if it shows no more.
        frequency_power: a class is drawn in proportion to its number of images to this power.
        ann_file: a COCO or LVIS annotation file, or one with its ``categories`` alone, which
            is read much faster. The images of a class are its ``image_count`` there or are counted.
            It is read when the first loss is computed, by the first rank, which tells the others:
            LVIS' own takes gigabytes while it is read, and a model that only predicts does without.

    Raises:
        TypeError: an argument is unknown or of another kind.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        total_classes: int,
        ann_file: str,
        num_classes: int = 50,  # both are detectron2's defaults
        frequency_power: float = 0.5,
    ) -> None:
        kinds: dict[str, tuple[object, tuple[type, ...], str]] = {
            "num_classes": (num_classes, (int,), "a whole number"),
            "frequency_power": (frequency_power, (int, float), "a number"),
            "ann_file": (ann_file, (str, Path), "an annotation file"),
        }
        for name, (value, types, kind) in kinds.items():
            if not isinstance(value, types) or isinstance(value, bool):
                raise TypeError(f"FederatedClasses: expected {name} = {kind}, got {value!r}")
        if not 1 <= num_classes <= total_classes:
            raise ValueError(
                f"FederatedClasses: expected 1 <= num_classes <= {total_classes}, the classes of "
                f"the head, got {num_classes}"
            )
        if not 0 <= frequency_power < float("inf"):
            raise ValueError(
                f"FederatedClasses: expected frequency_power >= 0, got {frequency_power}"
            )
        if not str(ann_file):
            raise ValueError(
                f"FederatedClasses: expected ann_file = an annotation file, got {ann_file!r}"
            )
        self.total_classes = total_classes
        self.num_classes = num_classes
        self.frequency_power = frequency_power
        self.ann_file = str(ann_file)
        self._chances: Tensor | None = None

    def draw(self, labels: Tensor) -> Tensor:
        """Return 1 for the classes (K,) that an image learns from, 0 for the others.

        Args:
            labels: the classes of the image's objects (objects,).

        Raises:
            FileNotFoundError: the annotation file is not there.
            ValueError: it holds other classes than the head.
        """
        if self._chances is None:
            frequencies = _counts_for_all_ranks(self.ann_file)
            if len(frequencies) != self.total_classes:
                raise ValueError(
                    f"FederatedClasses: expected ann_file with the {self.total_classes} classes of "
                    f"the head, got {self.ann_file} with {len(frequencies)}"
                )
            # A class without images has the chance 0, or 1 where the power is 0.
            self._chances = torch.tensor(frequencies, dtype=torch.float64) ** self.frequency_power
        weights = labels.new_zeros(self.total_classes, dtype=torch.float32)
        weights[labels] = 1.0
        # What the image shows is in already and is not drawn a second time.
        chances = self._chances.to(labels.device) * (1.0 - weights)
        wanted = self.num_classes - int(weights.sum())
        possible = int((chances > 0).sum())
        # multinomial() raises for more draws than there are chances above 0.
        if wanted > 0 and possible:
            weights[torch.multinomial(chances, min(wanted, possible))] = 1.0
        return weights


def _counts_for_all_ranks(ann_file: str) -> list[int]:
    """Return what the first rank reads; an error there is raised on every rank.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON, or holds no categories.
    """
    answer: list[Any] = [None]
    if is_main_process():
        try:
            answer = [read_image_counts(ann_file)]
        except (OSError, ValueError) as error:
            answer = [error]  # without it the other ranks would wait for the broadcast
    broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return list(answer[0])


def read_image_counts(ann_file: str | Path) -> list[int]:
    """Return the number of images of every category of a COCO or LVIS file.

    They stand in the file's order, which is that of mmdet's labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON, or holds no categories.
    """
    try:
        content: Any = json.loads(Path(ann_file).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"read_image_counts: expected a JSON file, got {ann_file}: {error}"
        ) from error
    categories = content.get("categories") if isinstance(content, dict) else None
    if not categories:
        raise ValueError(f"read_image_counts: expected a file with categories, got {ann_file}")
    # LVIS counts them itself. COCO does not; there several boxes in an image are one.
    if all("image_count" in category for category in categories):
        return [int(category["image_count"]) for category in categories]
    pairs = {(a["category_id"], a["image_id"]) for a in content.get("annotations", ())}
    counted = Counter(category for category, _ in pairs)
    return [counted[category["id"]] for category in categories]
