"""Runs exported models with ONNX Runtime or OpenVINO, NumPy and Pillow: no PyTorch, no OpenCV.

    from internimage.runtime import load_model
    model = load_model("internimage_t.onnx")
    model.predict("photo.jpg")

From the shell: ``python -m internimage.runtime MODEL.onnx IMAGE...``, or ``internimage run``.
``model_of(metadata, run)`` makes the same of any function from inputs to outputs.
"""

from __future__ import annotations

from pathlib import Path

from internimage.runtime.classification import Classifier
from internimage.runtime.detection import Detections, Detector
from internimage.runtime.metadata import Metadata, parse_metadata, read_metadata
from internimage.runtime.model import Model
from internimage.runtime.segmentation import Segmentor
from internimage.runtime.sessions import Backend, Run, open_session

__all__ = [
    "Classifier",
    "Detections",
    "Detector",
    "Metadata",
    "Model",
    "Run",
    "Segmentor",
    "load_model",
    "model_of",
    "open_session",
    "parse_metadata",
    "read_metadata",
]


def load_model(
    path: str | Path,
    *,
    backend: Backend = "onnxruntime",
    threads: int | None = None,
    library: str | Path | None = None,
) -> Classifier | Detector | Segmentor:
    """Load an exported model.

    Args:
        path: an ONNX file of ``internimage export``, ``detection/deploy.py`` or
            ``segmentation/deploy.py``.
        backend: what runs it.
        threads: of one run; None is the runtime's own choice.
        library: with the operator of files exported with ``--operator node``; None takes the one
            of an installed ``ops_dcnv3``.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the runtime is not installed.
        ValueError: the file is no exported model, or the runtime cannot load it.
    """
    metadata = read_metadata(path)
    run = open_session(
        Path(path),
        metadata,
        backend=backend,
        threads=threads,
        library=None if library is None else Path(library),
    )
    return model_of(metadata, run)


def model_of(metadata: Metadata, run: Run) -> Classifier | Detector | Segmentor:
    """Return the model of a function from its inputs to its outputs, whatever computes that.

    Args:
        metadata: what its file says of itself.
        run: takes arrays by the names of the inputs (``input``, of detectors ``image_size`` as
            well), returns arrays by the names of the outputs.
    """
    kinds: dict[str, type[Classifier | Detector | Segmentor]] = {
        "classification": Classifier,
        "detection": Detector,
        "segmentation": Segmentor,
    }
    return kinds[metadata.task](metadata, run)
