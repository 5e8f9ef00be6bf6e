"""What an exported file is to be: its input's size, what may vary, its precision and its operator.

Shape legend: N images, H W pixels of an exported model's input.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Literal, get_args

from internimage.metadata import MAX_IMAGE_SIZE

Precision = Literal["fp32", "fp16"]
Operator = Literal["grid_sample", "node"]
Boxes = Literal["operators", "loops"]

DYNAMIC_AXES = ("batch", "height", "width")
"""Axes of the input that may be left open."""

SIDES = ("height", "width")
"""Those that the ratio of an image's sides decides."""

OPSETS = (17, 18, 19)
"""Versions of ONNX's operators in which a file can be written."""

IR_VERSIONS = {17: 8, 18: 8, 19: 9}
"""Opset -> the version of ONNX's file format of its time, which runtimes from then on read."""

_RENAMED_MODE = 20
"""The first opset whose GridSample has other names for its modes."""


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What an exported file is to be.

    Args:
        image_size: (H, W) of the traced input, pixels; None is the model's own test size.
        dynamic: the axes of the input that a run may choose, of :data:`DYNAMIC_AXES`; None is the
            task's own choice: height and width of detectors and segmentors that keep an image's
            ratio of sides, unless there is an ``image_size``, and no axis else.
        precision: ``"fp32"``, or ``"fp16"`` for half precision where it does no harm: of a
            classifier all but inputs, outputs and the sampling of DCNv3; of detectors and
            segmentors at least the backbone, never boxes, scores and what is sampled after them.
        operator: ``"grid_sample"`` writes DCNv3 in ONNX's own operators and runs everywhere;
            ``"node"`` writes one ``dcnv3::DCNv3Packed`` for a plugin or a custom operator.
        boxes: ``"operators"`` writes an R-CNN with NonMaxSuppression and RoiAlign; ``"loops"`` with
            neither, for TensorRT for RTX: the same results, slower elsewhere, fixed sizes only.
        opset: version of ONNX's operators, of :data:`OPSETS`.
        batch_size: N of the traced input.

    Raises:
        TypeError: a number is none, or ``dynamic`` no set.
        ValueError: a value is not one of the above.
    """

    image_size: tuple[int, int] | None = None
    dynamic: frozenset[str] | None = None
    precision: Precision = "fp32"
    operator: Operator = "grid_sample"
    opset: int = 18  # what PyTorch's exporter writes by itself: nothing to convert
    batch_size: int = 1
    boxes: Boxes = "operators"

    def __post_init__(self) -> None:
        if self.image_size is not None:
            if not isinstance(self.image_size, tuple | list) or len(self.image_size) != 2:
                raise TypeError(
                    "ExportOptions: expected image_size = (height, width) or None, got "
                    f"{self.image_size!r}"
                )
            for name, side in zip(("height", "width"), self.image_size, strict=True):
                _check_int(f"image_size's {name}", side, 1, MAX_IMAGE_SIZE)
            # The class is frozen, and a list would neither hash nor stay as it was checked.
            object.__setattr__(self, "image_size", tuple(self.image_size))
        if self.dynamic is not None:
            if not isinstance(self.dynamic, Iterable):
                raise TypeError(
                    f"ExportOptions: expected dynamic = axes of {', '.join(DYNAMIC_AXES)}, or "
                    f"None, got {self.dynamic!r}"
                )
            # A text is a set of letters to Python: "height" without braces is meant as one axis.
            axes = {self.dynamic} if isinstance(self.dynamic, str) else set(self.dynamic)
            if isinstance(self.dynamic, str) or not axes <= set(DYNAMIC_AXES):
                raise ValueError(
                    f"ExportOptions: expected dynamic = axes of {', '.join(DYNAMIC_AXES)}, got "
                    f"{', '.join(sorted(map(str, axes)))}"
                )
            object.__setattr__(self, "dynamic", frozenset(self.dynamic))
        for name, value, choices in (
            ("precision", self.precision, get_args(Precision)),
            ("operator", self.operator, get_args(Operator)),
            ("boxes", self.boxes, get_args(Boxes)),
        ):
            if value not in choices:
                raise ValueError(
                    f"ExportOptions: expected {name} in {{{', '.join(choices)}}}, got {value!r}"
                )
        _check_int("batch_size", self.batch_size, 1, None)
        _check_opset(self.opset)

    @property
    def opened(self) -> frozenset[str]:
        """The axes that a run may choose; none where nobody has decided."""
        return self.dynamic or frozenset()

    def decided(self, *, keeps_ratio: bool) -> ExportOptions:
        """Return these options with the axes named that a task leaves open by itself.

        Args:
            keeps_ratio: whether whole images come, each with its own ratio of sides: in a fixed
                file they are others than PyTorch's.
        """
        if self.dynamic is not None:
            return self
        # A size that is named is that of every input; what stays open beside it is to be named too.
        opened = SIDES if keeps_ratio and self.image_size is None else ()
        return dataclasses.replace(self, dynamic=frozenset(opened))

    def warn_of_boxes(self, function: str, model: str) -> None:
        """Say that ``boxes`` changes nothing, if it is not as it is by default.

        Args:
            function: who says it.
            model: what is exported, in words.
        """
        if self.boxes != "operators":
            warnings.warn(
                f"{function}: boxes = {self.boxes} changes nothing: {model} has neither "
                "NonMaxSuppression nor RoiAlign",
                stacklevel=3,
            )


def _check_int(name: str, value: object, least: int, most: int | None) -> None:
    # True is an int to Python, and would be a size of one.
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"ExportOptions: expected {name} = a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        limit = f">= {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"ExportOptions: expected {name} {limit}, got {value}")


def _check_opset(opset: object) -> None:
    if not isinstance(opset, int) or isinstance(opset, bool):
        raise TypeError(f"ExportOptions: expected opset = a whole number, got {opset!r}")
    # Apart from the other wrong ones: such a file would load, and answer wrongly in TensorRT.
    if opset >= _RENAMED_MODE:
        raise ValueError(
            f"ExportOptions: expected opset in {OPSETS}, got {opset}: opset {_RENAMED_MODE} calls "
            "GridSample's bilinear mode linear, which several parsers of TensorRT take for nearest"
        )
    if opset not in OPSETS:
        raise ValueError(
            f"ExportOptions: expected opset in {OPSETS}, got {opset}: GridSample came with opset "
            "16 and LayerNormalization with 17"
        )
