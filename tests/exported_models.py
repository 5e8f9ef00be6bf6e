"""Tiny models of every task as ONNX files, each exported once and by whoever asks first.

The export itself runs each file in ONNX Runtime and compares it with PyTorch; what other programs
make of the files is for the tests that take them. Do not change the files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.shared_folders import folder_of_all

Exported = Callable[[str], Path]

NUM_BLOCKS = 5
"""DCNv3 layers of the backbone ``test_t``: so many GridSample nodes has a file, or more."""

OPEN = frozenset({"batch", "height", "width"})

CLASSIFIERS = ("classifier", "classifier dynamic", "classifier half", "classifier node")
DETECTORS = (
    "mask_rcnn", "mask_rcnn dynamic", "mask_rcnn loops", "cascade", "cascade loops", "dino",
    "dino dynamic",
)  # fmt: skip
SEGMENTORS = ("upernet", "upernet dynamic", "segformer", "mask2former", "mask2former dynamic")


def export_classifier(kind: str, path: Path) -> None:
    """Write ``classifier``, with open axes, in half or with the operator as a node."""
    import internimage
    from internimage.export import ExportOptions
    from internimage.export.classifier import export_classifier as export
    from internimage.metadata import Preprocessing

    torch.manual_seed(0)
    model = internimage.create_model("internimage_test_t", num_classes=7).eval()
    options = ExportOptions(
        image_size=(64, 64) if "dynamic" in kind else (32, 32),
        dynamic=OPEN if "dynamic" in kind else frozenset(),
        precision="fp16" if "half" in kind else "fp32",
        operator="node" if "node" in kind else "grid_sample",
    )
    preprocessing = Preprocessing(image_size=32)
    export(model, path, name="internimage_test_t", preprocessing=preprocessing, options=options)


def export_detector(kind: str, path: Path) -> None:
    """Write a detector with random weights, its input 96 x 128; two images of those in loops."""
    from internimage.export import ExportOptions
    from internimage.integrations.openmmlab.export.detector import export_detector as export
    from tests.detection.exportable_detectors import TWO_LEVELS, save_detector

    changes = TWO_LEVELS if kind == "dino dynamic" else {}
    config, checkpoint = save_detector(path.parent, kind.split()[0], **changes)
    dynamic = OPEN if "dynamic" in kind else frozenset()
    has_loops = "loops" in kind
    options = ExportOptions(
        image_size=(96, 128),
        dynamic=dynamic,
        batch_size=2 if has_loops else 1,
        boxes="loops" if has_loops else "operators",
    )
    export(config, checkpoint, path, options)


def export_segmentor(kind: str, path: Path) -> None:
    """Write a segmentor with random weights, its input 64 x 96."""
    from internimage.export import ExportOptions
    from internimage.integrations.openmmlab.export.segmentor import export_segmentor as export
    from tests.segmentation.tiny_segmentors import SEGMENTORS, save_tiny_segmentor, tiny_config

    config = tiny_config(path.parent, SEGMENTORS[kind.split()[0]])
    checkpoint = save_tiny_segmentor(config, path.with_suffix(".pth"))
    dynamic = OPEN if "dynamic" in kind else frozenset()
    export(config, checkpoint, path, ExportOptions(image_size=(64, 96), dynamic=dynamic))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Function from a name of :data:`CLASSIFIERS`, ... to its ONNX file."""
    exports = {
        **dict.fromkeys(CLASSIFIERS, export_classifier),
        **dict.fromkeys(DETECTORS, export_detector),
        **dict.fromkeys(SEGMENTORS, export_segmentor),
    }

    def export(kind: str) -> Path:
        with folder_of_all(tmp_path_factory, f"exported {kind}") as folder:
            path = folder / f"{kind.replace(' ', '_')}.onnx"
            if not path.exists():
                exports[kind](kind, path)
        return path

    return export
