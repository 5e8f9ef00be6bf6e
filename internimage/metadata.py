"""What has to travel with weights so that a checkpoint alone is enough to classify an image."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's red, green, blue on a 0-1 scale."""

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
"""Resampling filters, by the names that Pillow and torchvision have for them."""

MAX_IMAGE_SIZE = 8192
"""Side in pixels beyond which an image is a mistake: its model would need terabytes."""

OWN_ARGUMENTS = ("name", "pretrained", "num_classes", "features_only", "out_indices")
"""Arguments of ``create_model`` that metadata has fields for, or that make no classifier."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the model's input: resize the shorter side, crop the centre, normalise.

    Args:
        image_size: side of the square that the model sees, pixels; over ``crop_ratio`` it is at
            most :data:`MAX_IMAGE_SIZE`.
        mean: mean of red, green, blue, 0-1.
        std: their standard deviation, 0-1.
        interpolation: resampling filter, one of :data:`INTERPOLATIONS`.
        crop_ratio: ``image_size`` over the size that the shorter side is resized to, in (0, 1].

    Raises:
        ValueError: a value is out of range.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"
    crop_ratio: float = 1.0

    def __post_init__(self) -> None:
        if not (_is_int(self.image_size) and self.image_size >= 1):
            raise ValueError(f"Preprocessing: expected image_size >= 1, got {self.image_size!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (
                isinstance(values, Sequence)
                and len(values) == 3
                and all(_is_number(value) for value in values)
            ):
                raise ValueError(f"Preprocessing: expected {name} = three numbers, got {values!r}")
            object.__setattr__(self, name, tuple(float(value) for value in values))
        if min(self.std) <= 0:
            raise ValueError(f"Preprocessing: expected std > 0, got {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"Preprocessing: expected interpolation in {{{', '.join(INTERPOLATIONS)}}}, "
                f"got {self.interpolation!r}"
            )
        if not (_is_number(self.crop_ratio) and 0 < self.crop_ratio <= 1):
            raise ValueError(
                f"Preprocessing: expected 0 < crop_ratio <= 1, got {self.crop_ratio!r}"
            )
        if self.image_size > MAX_IMAGE_SIZE * self.crop_ratio:
            raise ValueError(
                f"Preprocessing: expected image_size / crop_ratio <= {MAX_IMAGE_SIZE} pixels, "
                f"got {self.image_size} / {self.crop_ratio}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """Model, classes and preprocessing of saved weights.

    Args:
        model_name: a name that ``create_model`` knows.
        num_classes: size of the last linear layer.
        preprocessing: how images are prepared.
        class_names: one a class, or none at all.
        overrides: further arguments of ``create_model`` (JSON values), but none of
            :data:`OWN_ARGUMENTS`.

    Raises:
        ValueError: a value is of another type, or the number of class names is neither 0 nor
            ``num_classes``.
    """

    model_name: str
    num_classes: int
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    class_names: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model_name, str):
            raise ValueError(
                f"CheckpointMetadata: expected model_name = text, got {self.model_name!r}"
            )
        if not isinstance(self.class_names, list | tuple) or not all(
            isinstance(name, str) for name in self.class_names
        ):
            raise ValueError(
                f"CheckpointMetadata: expected class_names = texts, got {self.class_names!r}"
            )
        if not isinstance(self.overrides, Mapping) or set(OWN_ARGUMENTS) & set(self.overrides):
            raise ValueError(
                "CheckpointMetadata: expected overrides = arguments of create_model other than "
                f"{', '.join(OWN_ARGUMENTS)}, got {self.overrides!r}"
            )
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "overrides", dict(self.overrides))
        if not (_is_int(self.num_classes) and self.num_classes >= 1):
            raise ValueError(
                f"CheckpointMetadata: expected num_classes >= 1, got {self.num_classes!r}"
            )
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"CheckpointMetadata: expected {self.num_classes} class names or none, "
                f"got {len(self.class_names)}"
            )

    def to_json(self) -> str:
        """Write as one JSON object."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> CheckpointMetadata:
        """Read what :meth:`to_json` wrote, in this version or a later one with further fields.

        Raises:
            ValueError: the text is not that.
        """
        try:
            fields = json.loads(text)
            preprocessing = Preprocessing(**_known(Preprocessing, fields["preprocessing"]))
            return cls(**{**_known(cls, fields), "preprocessing": preprocessing})
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"CheckpointMetadata.from_json: expected what to_json writes, got {text[:80]!r} "
                f"({error})"
            ) from error


def _known(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in fields.items() if name in names}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # neither infinite nor NaN
