"""Exported files in OpenVINO: they answer as in ONNX Runtime, compared with PyTorch before."""

from __future__ import annotations

import numpy as np
import pytest

from tests.openvino_runs import run_openvino

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")

KINDS = {  # -> sizes of images, largest difference over the largest value
    "classifier": ([(1, 32, 32)], 1e-5),
    "classifier dynamic": ([(1, 64, 64), (3, 77, 128)], 1e-5),
    "classifier half": ([(1, 32, 32)], 2e-3),
    "upernet": ([(1, 64, 96)], 1e-5),
    "segformer": ([(1, 64, 96)], 1e-5),
    "mask2former": ([(1, 64, 96)], 1e-5),
    "mask_rcnn": ([(1, 96, 128)], 5e-5),
    "dino": ([(1, 96, 128)], 5e-5),
}


def make_inputs(session, batch: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Noise; detectors are told that it fills the whole input."""
    noise = np.random.default_rng(0).standard_normal((batch, 3, height, width))
    sizes = {"image_size": np.array([[height, width]] * batch, np.int64)}
    names = {value.name for value in session.get_inputs()}
    inputs = {"input": noise.astype(np.float32)} | sizes
    return {name: value for name, value in inputs.items() if name in names}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_answers_as_in_onnx_runtime(kind, exported):
    path = exported(kind)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    shapes, tolerance = KINDS[kind]
    for shape in shapes:
        inputs = make_inputs(session, *shape)
        expected = dict(zip(names, session.run(None, inputs), strict=True))
        found = run_openvino(path, inputs)
        for name, value in expected.items():
            assert found[name].shape == value.shape, name
            apart = np.abs(found[name].astype(np.float64) - value).max()
            assert apart <= tolerance * np.abs(value).max(), f"{name}: {apart}"
