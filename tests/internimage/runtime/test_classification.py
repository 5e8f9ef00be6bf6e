"""An exported classifier gives the labels of the model that it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import internimage
from internimage.image import load_image, preprocess
from internimage.metadata import Preprocessing
from internimage.runtime import Classifier, load_model


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


def scores_in_pytorch(photo: Path) -> np.ndarray:
    torch.manual_seed(0)  # as the file was made
    model = internimage.create_model("internimage_test_t", num_classes=7).eval()
    x = preprocess(load_image(photo), Preprocessing(image_size=32))
    with torch.inference_mode():
        return model(x[None]).softmax(-1)[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_labels_are_those_of_the_model_in_pytorch(exported, photo, backend):
    model = load_model(exported("classifier"), backend=backend, threads=1)
    assert isinstance(model, Classifier)
    expected = scores_in_pytorch(photo)
    found = model.predict(photo, topk=7)
    assert [one.index for one in found] == np.argsort(-expected).tolist()
    np.testing.assert_allclose([one.score for one in found], np.sort(expected)[::-1], atol=1e-5)


@pytest.mark.slow
def test_a_half_file_gives_the_same_in_every_runtime(exported, photo):
    """OpenVINO has other names for its output as well: it stands behind a cast."""
    path = exported("classifier half")
    expected, found = (
        load_model(path, backend=backend, threads=1).predict(photo, topk=7)
        for backend in ("onnxruntime", "openvino")
    )
    by_class = {one.index: one.score for one in expected}
    for one in found:
        assert one.score == pytest.approx(by_class[one.index], abs=2e-3)


@pytest.mark.slow
def test_images_may_be_files_images_of_pillow_or_arrays(exported, photo):
    model = load_model(exported("classifier"), threads=1)
    assert isinstance(model, Classifier)
    image = load_image(photo)
    expected = model.predict(photo)
    assert len(expected) == 5
    assert model.predict(str(photo)) == model.predict(image) == expected
    assert model.predict(np.asarray(image)) == expected
    assert len(model.predict(image.convert("L"), topk=99)) == 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_of_another_kind_are_an_error(exported, image):
    model = load_model(exported("classifier"), threads=1)
    with pytest.raises(ValueError, match=r"expected an array \(height, width, 3\) of uint8, got"):
        model.predict(image)


@pytest.mark.slow
def test_no_label_at_all_is_an_error(exported, photo):
    model = load_model(exported("classifier"), threads=1)
    assert isinstance(model, Classifier)
    with pytest.raises(ValueError, match="expected topk >= 1, got 0"):
        model.predict(photo, topk=0)
