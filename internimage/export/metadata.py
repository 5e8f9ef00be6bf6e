"""What travels inside an exported file, so that the file alone is enough to answer for an image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from internimage.runtime.format import (
    FORMAT,
    OPTIONAL_RESIZE_FIELDS,
    RESIZE_FIELDS,
    TASKS,
    TaskName,
)
from internimage.runtime.metadata import metadata_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What a program needs beside an exported model to use it.

    Args:
        task: what the model answers.
        model: its name.
        classes: names of the classes; empty where none are known.
        mean: of red, green, blue, 0-255.
        std: their standard deviation, 0-255.
        resize: how an image becomes the input, see ``RESIZE_FIELDS`` of the format.
        palette: red, green, blue of each class, 0-255.
        window: of a segmentor that slides: ``{"size": [H, W], "stride": [H, W]}``, pixels.
        score_threshold: the lowest score that a detector reports, 0-1.
        mask_threshold: the lowest probability of a mask's pixel, 0-1.

    Raises:
        ValueError: a value is not one of the above, or a mode lacks a field.
    """

    task: TaskName
    model: str
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    resize: Mapping[str, Any]
    palette: Sequence[Sequence[int]] | None = None
    window: Mapping[str, Sequence[int]] | None = None
    score_threshold: float | None = None
    mask_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(
                f"ModelMetadata: expected task in {{{', '.join(TASKS)}}}, got {self.task!r}"
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(
                    f"ModelMetadata: expected {name} = three numbers, got {getattr(self, name)!r}"
                )
        mode = str(self.resize.get("mode"))
        # A field that nobody reads is a misspelt one: the runner would pass over it.
        fields, needed = set(self.resize) - {"mode"}, RESIZE_FIELDS.get(mode, frozenset())
        if mode not in RESIZE_FIELDS or not needed <= fields <= needed | OPTIONAL_RESIZE_FIELDS:
            wanted = {name: sorted(needed) for name, needed in RESIZE_FIELDS.items()}
            raise ValueError(
                f"ModelMetadata: expected resize with a mode and its fields of {wanted}, got "
                f"{dict(self.resize)}"
            )
        # More colours than names are fine: outputs of a segmentor may lack a name.
        if self.palette is not None and len(self.palette) < len(self.classes):
            raise ValueError(
                f"ModelMetadata: expected a colour for each of {len(self.classes)} classes, got "
                f"{len(self.palette)}"
            )
        # As the runner reads it, or the file would be refused there.
        unknown = {"precision": "", "operator": "", "input_size": [None, None], "batch": None}
        try:
            metadata_of(json.loads(self.to_json(**unknown)))
        except ValueError as error:
            raise ValueError(
                f"ModelMetadata: expected what `internimage run` can read, got {error}"
            ) from error

    def to_json(self, **facts: Any) -> str:
        """Write as one JSON object.

        Args:
            facts: what the export itself knows: version, precision, operator, input_size, batch.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        # NaN is a word of Python's json alone: other readers refuse the whole text.
        fields = {"format": FORMAT, **dataclasses.asdict(self), **facts}
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)
