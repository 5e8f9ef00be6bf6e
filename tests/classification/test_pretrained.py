"""Weights to start from: heads that fit or start afresh, weights that are of another model."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import internimage
from classification.config import get_default_config
from classification.distributed import Ranks
from classification.models import build_metadata, build_model
from classification.pretrained import load_pretrained
from classification.runs.run import prepare
from internimage import InternImageMetaFormer
from internimage.imagenet22k import imagenet_1k_rows
from internimage.metaformer import with_unknown_meta
from internimage.predict import build_predictor

ONE_RANK = Ranks(0, 1, torch.device("cpu"))


def settings(source: object = "", **options: object):
    config = get_default_config()
    config.MODEL.ARCH = "internimage_test_t"
    config.MODEL.PRETRAINED = str(source)
    for key, value in options.items():
        group, _, leaf = key.partition("__")
        config[group][leaf] = value
    return config


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, nn.Module]]:
    """Saves a model of another seed than the tests' own."""

    def save(num_classes: int, arch: str = "test_t", **options: object) -> tuple[Path, nn.Module]:
        torch.manual_seed(5)
        model = internimage.create_model(arch, num_classes=num_classes, **options)
        path = tmp_path / "weights.safetensors"
        internimage.save_checkpoint(model, path)
        return path, model

    return save


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.detach(), b.detach())


@pytest.mark.parametrize("key", ["FINE_TUNE", "RAND_INIT_FT_HEAD"])
def test_fine_tuning_without_weights_warns(key: str):
    config = settings(**{f"TRAIN__{key}": True})
    with pytest.warns(UserWarning, match=f"TRAIN.{key} = True without MODEL.PRETRAINED") as caught:
        assert load_pretrained(config, build_model(config, num_classes=3)) == ""
    assert len(caught) == 1


def test_training_from_scratch_and_fine_tuning_with_weights_do_not_warn(saved, recwarn):
    path, _ = saved(3)
    for config in (settings(), settings(path, TRAIN__FINE_TUNE=True)):
        load_pretrained(config, build_model(config, num_classes=3))
    assert not [warning for warning in recwarn if "PRETRAINED" in str(warning.message)]


@pytest.mark.slow
def test_only_a_run_that_begins_anew_warns_of_weights_that_it_does_not_have(make_config):
    options = ("TRAIN.FINE_TUNE", True, "DATA.BATCH_SIZE", 700, "TRAIN.EPOCHS", 1)
    with pytest.warns(UserWarning, match="without MODEL.PRETRAINED"):
        run = prepare(make_config(*options), ONE_RANK)
    run.train()
    run.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(make_config(*options, "TRAIN.EPOCHS", 2), ONE_RANK).close()


def test_a_head_of_the_same_size_is_taken(saved):
    path, source = saved(7)
    config = settings(path)
    model = build_model(config, num_classes=7)
    line = load_pretrained(config, model)
    assert str(path) in line and "afresh" not in line
    for key, value in source.state_dict().items():
        assert same(model.state_dict()[key], value), key


@pytest.mark.parametrize("num_classes", [3, 900])
def test_a_head_of_another_size_starts_afresh_and_says_so(saved, num_classes: int):
    path, source = saved(7)
    config = settings(path)
    model = build_model(config, num_classes=num_classes)
    fresh = model.head.weight.clone()
    assert "afresh: head.weight, head.bias" in load_pretrained(config, model)
    assert same(model.head.weight, fresh)
    assert same(model.patch_embed.conv1.weight, source.patch_embed.conv1.weight)


def test_of_21841_classes_those_of_imagenet_1k_are_taken(saved):
    path, source = saved(21841)
    config = settings(path)
    model = build_model(config, num_classes=1000)
    assert "1,000 of 21,841 classes selected" in load_pretrained(config, model)
    assert same(model.head.weight, source.head.weight[torch.tensor(imagenet_1k_rows())])


@pytest.mark.parametrize("num_classes", [7, 1000])
def test_a_head_may_be_asked_to_start_afresh_and_small(saved, num_classes: int):
    path, source = saved(7 if num_classes == 7 else 21841)
    config = settings(path, TRAIN__RAND_INIT_FT_HEAD=True)
    model = build_model(config, num_classes=num_classes)
    fresh = model.head.weight.clone()
    assert "last linear layer left as it was" in load_pretrained(config, model)
    assert torch.allclose(model.head.weight, fresh * 0.001, rtol=1e-6, atol=0)
    assert same(model.patch_embed.conv1.weight, source.patch_embed.conv1.weight)


def test_the_metaformer_starts_from_a_plain_classifier(saved):
    path, source = saved(7)
    config = settings(path, MODEL__TYPE="intern_image_meta_former")
    model = build_model(config, num_classes=7)
    assert isinstance(model, InternImageMetaFormer)
    line = load_pretrained(config, model)
    assert "meta_head_1.0.weight" in line
    assert same(model.head.weight, source.head.weight)


def test_a_plain_classifier_starts_from_the_metaformer(saved):
    path, source = saved(7, metaformer=True)
    config = settings(path)
    model = build_model(config, num_classes=7)
    line = load_pretrained(config, model)
    assert "left out: " in line and "meta_head_1.0.weight" in line
    assert same(model.head.weight, source.head.weight)


def test_a_model_without_a_middle_point_takes_weights_with_one(saved):
    path, _ = saved(7)
    config = settings(path)
    config.MODEL.INTERN_IMAGE.REMOVE_CENTER = True
    model = build_model(config, num_classes=7)
    assert "middle sampling points removed" in load_pretrained(config, model)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        (
            "internimage_n",
            {},
            r"expected weights of MODEL.ARCH = internimage_test_t \(16 channels, depths 1-1-2-1\), "
            r"got those of internimage_n \(32 channels, depths 1-1-3-1\) in ",
        ),
        ("test_t", {"channels": 32}, r"got those of another size \(32 channels, depths 1-1-2-1\)"),
        ("test_s", {}, r"expected weights of internimage_test_t .* with \d+ other keys: levels\."),
    ],
)
def test_weights_of_another_model_are_one_line_that_names_both(saved, arch, options, message):
    path, _ = saved(7, arch, **options)
    config = settings(path)
    with pytest.raises(ValueError, match=message) as caught:
        load_pretrained(config, build_model(config, num_classes=7))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_file_without_a_key_of_the_model_is_named(tmp_path: Path):
    path = tmp_path / "foreign.pth"
    torch.save({"a": torch.zeros(3)}, path)
    config = settings(path)
    with pytest.raises(
        ValueError, match=r"MODEL.PRETRAINED, got .*foreign.pth with other keys: a$"
    ):
        load_pretrained(config, build_model(config, num_classes=7))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "internimage_t_1k_225",
            FileNotFoundError,
            "a file or a released name for MODEL.PRETRAINED, got internimage_t_1k_225; did you "
            r"mean internimage_t_1k_224\?",
        ),
        (__file__, ValueError, "test_pretrained.py"),
    ],
)
def test_a_file_that_is_none_is_named(source, error, message):
    config = settings(source)
    with pytest.raises(error, match=message):
        load_pretrained(config, build_model(config, num_classes=7))


# ------------------------------------------------------------------------------------------------
# the model itself


def test_more_classes_than_the_data_has_are_allowed_and_fewer_are_not():
    config = settings(MODEL__NUM_CLASSES=12)
    assert build_model(config, num_classes=10).num_classes == 12
    names = build_metadata(config, class_names=[f"c{i}" for i in range(10)]).class_names
    assert names[9:] == ("c9", "10", "11")
    with pytest.raises(ValueError, match=r"NUM_CLASSES >= classes of imagenet = 13, got 12"):
        build_model(config, num_classes=13)


@pytest.mark.parametrize(
    ("kind", "rates"), [("linear", [0, 0.1, 0.2, 0.3, 0.4]), ("uniform", [0.4] * 5)]
)
def test_the_drop_path_is_of_its_type(kind: str, rates: list[float]):
    config = settings(MODEL__DROP_PATH_TYPE=kind, MODEL__DROP_PATH_RATE=0.4)
    model = build_model(config, num_classes=3)
    found = [block.drop_path.rate for level in model.levels for block in level.blocks]
    assert found == pytest.approx(rates)


def test_the_metaformers_file_alone_classifies_an_image(tmp_path: Path):
    config = settings(MODEL__TYPE="intern_image_meta_former", DATA__IMG_SIZE=32)
    model = build_model(config, num_classes=2).eval()
    path = tmp_path / "weights.safetensors"
    metadata = build_metadata(config, class_names=["a", "b"])
    internimage.save_checkpoint(model, path, metadata=metadata)
    predictor = build_predictor(checkpoint=path)
    assert isinstance(predictor.model, InternImageMetaFormer)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(with_unknown_meta(images)).softmax(-1).max().item()
    assert predictor.classify(images)[0][0].score == pytest.approx(expected)


def test_one_image_of_one_pixel_is_too_little_for_batch_norm():
    small = {"DATA__BATCH_SIZE": 1, "DATA__IMG_SIZE": 32}
    with pytest.raises(ValueError, match="expected DATA.BATCH_SIZE >= 2 beside the batch norm"):
        build_model(settings(**small), num_classes=3)
    for fitting in ({"DATA__IMG_SIZE": 64}, {"DATA__BATCH_SIZE": 2}):
        config = settings(**small | fitting)
        size = config.DATA.IMG_SIZE
        model = build_model(config, num_classes=3).train()
        assert model(torch.zeros(config.DATA.BATCH_SIZE, 3, size, size)).isfinite().all()
    config = settings(**small)
    config.EVAL_MODE = True
    build_model(config, num_classes=3)


def test_sync_bn_needs_batch_norm():
    config = settings(TRAIN__SYNC_BN=True)
    assert build_model(config, num_classes=3) is not None
    config.MODEL.ARCH = "internimage_test_h"
    with pytest.raises(ValueError, match="a model with batch norm beside TRAIN.SYNC_BN = True"):
        build_model(config, num_classes=3)
