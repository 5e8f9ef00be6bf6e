"""CB-DINO: both streams learn, for any batch size; the second one predicts."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS

from tests.detection.small_dino import (
    build,
    images_and_targets,
    losses_and_gradients,
    small_cb_config,
)


@pytest.fixture(scope="module")
def model(fill):
    """A model whose streams differ: its gammas are not zero."""
    return fill(build(small_cb_config()).float()).float()


def stream_losses(losses, stream):
    prefix = f"stream{stream}."
    return {k.removeprefix(prefix): v for k, v in losses.items() if k.startswith(prefix)}


def losses_of_one_stream(model, images, samples, stream):
    """The losses of an ordinary DINO that sees one stream's maps."""
    pyramids = model.extract_feat(images)
    inputs = model.forward_transformer(pyramids[stream], samples)
    return model.bbox_head.loss(**inputs, batch_data_samples=samples)


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (2, 0, 1)])
def test_the_losses_of_both_streams_are_those_of_two_dinos_at_any_batch_size(model, numbers):
    images, samples = images_and_targets(*numbers)
    model.train()
    with torch.no_grad():
        losses = model.loss(images, samples)
        for stream, weight in ((0, 0.5), (1, 1.0)):
            expected = losses_of_one_stream(model, images, samples, stream)
            found = stream_losses(losses, stream)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(found[name], weight * value, rtol=1e-4, atol=1e-5)
    assert len(losses) == len(stream_losses(losses, 0)) + len(stream_losses(losses, 1))


def test_weights_of_the_streams_are_a_setting(model):
    config = small_cb_config(stream_weights=(0.0, 2.0))
    other = MODELS.build(config)
    other.load_state_dict(model.state_dict())
    images, samples = images_and_targets(2)
    with torch.no_grad():
        plain, weighted = model.train().loss(images, samples), other.train().loss(images, samples)
    assert not any(stream_losses(weighted, 0).values())
    for name, value in stream_losses(plain, 1).items():
        torch.testing.assert_close(stream_losses(weighted, 1)[name], 2 * value)


def test_every_parameter_learns(model):
    _, gradients = losses_and_gradients(model, 2, 1)
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    for name, gradient in gradients.items():
        # DCNv3's mask bias alone may cancel: a softmax does not see a common shift
        assert gradient.any(), name


def test_an_image_without_objects_leaves_no_parameter_out(model):
    _, gradients = losses_and_gradients(model, 0)
    # parameters out of the graph would stop training on several GPUs
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_a_step_in_bfloat16_is_near_that_in_float32(model):
    images, samples = images_and_targets(2, 1)
    expected = model.train().loss(images, samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.loss(images, samples)
    total, wanted = model.parse_losses(found)[0], model.parse_losses(expected)[0]
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert float(total) == pytest.approx(float(wanted), rel=0.05)


def test_predictions_are_those_of_the_second_stream_alone(model):
    images, samples = images_and_targets(1, 1)
    model.eval()
    with torch.no_grad():
        found = model.predict(images, samples, rescale=False)
        second = model.backbone(images)[1]
        pyramid = super(type(model.neck), model.neck).forward(second)
        inputs = model.forward_transformer(pyramid, samples)
        expected = model.bbox_head.predict(**inputs, batch_data_samples=samples, rescale=False)
    for sample, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(sample.pred_instances.bboxes, wanted.bboxes)
        torch.testing.assert_close(sample.pred_instances.scores, wanted.scores)


def test_images_of_odd_sizes_are_trained_on_and_predicted():
    model = build(small_cb_config())
    images, samples = images_and_targets(2)
    images = images[:, :, :53, :47]
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(53, 47), batch_input_shape=(53, 47)))
    losses = model.train().loss(images, samples)
    assert all(torch.isfinite(value).all() for value in losses.values())
    with torch.no_grad():
        result = model.eval().predict(images, samples, rescale=False)
    assert len(result[0].pred_instances) == 10


@pytest.mark.parametrize("weights", [(1.0,), (0.5, -1.0), (0.5, 1.0, 1.0)])
def test_weights_of_the_streams_that_are_not_two_or_negative_are_an_error(weights):
    with pytest.raises(ValueError, match="expected stream_weights = two numbers >= 0"):
        MODELS.build(small_cb_config(stream_weights=weights))
