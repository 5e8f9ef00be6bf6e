"""Exported files in OpenVINO, for tests that compare its answers with PyTorch's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def run_openvino(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a file by name, calculated in float32; skips where OpenVINO is missing."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = openvino.Core().compile_model(path, "CPU", settings)
    answer = model(inputs)
    # an output of a half file has its own name and that of what is cast
    return {name: answer[output] for output in model.outputs for name in output.get_names()}
