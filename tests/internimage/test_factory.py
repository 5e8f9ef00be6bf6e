"""Models by name: sizes, releases, and the errors for what is neither."""

from __future__ import annotations

import pytest
import torch

import internimage
from internimage import hub
from internimage.imagenet22k import imagenet_1k_rows

# Name -> classes, image size, published top-1 accuracy.
RELEASES = {
    "internimage_t_1k_224": (1000, 224, 83.5),
    "internimage_s_1k_224": (1000, 224, 84.2),
    "internimage_b_1k_224": (1000, 224, 84.9),
    "internimage_l_22kto1k_384": (1000, 384, 87.7),
    "internimage_xl_22kto1k_384": (1000, 384, 88.0),
    "internimage_h_22kto1k_640": (1000, 640, 89.6),
    "internimage_g_22kto1k_512": (1000, 512, 90.1),
    "internimage_l_22k_192to384": (21841, 384, None),
    "internimage_xl_22k_192to384": (21841, 384, None),
    "internimage_h_jointto22k_384": (21841, 384, None),
    "internimage_g_pretrainto22k_384": (21841, 384, None),
    "internimage_h_22ktoinat18_384": (8142, 384, 92.6),
}


def test_every_release_is_listed_with_its_facts():
    assert sorted(internimage.list_models()) == sorted(RELEASES)
    assert internimage.list_models("*_640") == ["internimage_h_22kto1k_640"]
    for name, (classes, size, top1) in RELEASES.items():
        release = hub.RELEASED[name]
        assert (release.num_classes, release.image_size, release.top1) == (classes, size, top1)
        assert release.preprocessing == internimage.Preprocessing(
            image_size=size,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            interpolation="bicubic",
            crop_ratio=1.0,
        )


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_builds_with_its_own_classes(name):
    with torch.device("meta"):
        model = internimage.create_model(name)
        assert model.num_classes == model.head.out_features == RELEASES[name][0]
        assert internimage.create_model(name, num_classes=3).head.out_features == 3
        backbone = internimage.create_model(name, features_only=True, out_indices=(2, 3))
    assert backbone.out_indices == (2, 3)
    assert not any(key.startswith(("head", "meta")) for key in backbone.state_dict())


@pytest.mark.parametrize(
    ("name", "repository_name"),
    [
        ("internimage_l_22k_192to384", "internimage_l_22k_384"),
        ("internimage_g_pretrainto22k_384", "internimage_g_jointto22k_384"),
    ],
)
def test_a_hub_repository_name_is_another_name_of_its_release(name, repository_name):
    assert hub.find_release(repository_name) is hub.RELEASED[name]


@pytest.mark.parametrize("name", internimage.list_variants())
def test_every_size_has_a_short_name(name):
    short = name.removeprefix("internimage_")
    assert internimage.get_variant(short) is internimage.get_variant(name)
    with torch.device("meta"):
        assert internimage.create_model(short).num_classes == 1000


def test_overrides_reach_the_model():
    model = internimage.create_model("internimage_test_t", num_classes=4, layer_scale=0.5)
    assert model.levels[0].blocks[0].gamma1.unique().item() == 0.5


@pytest.mark.parametrize("name", ["internimage_tt", "internimage_t_1k_225", "resnet50"])
def test_unknown_names_are_answered_with_the_nearest_ones(name):
    with pytest.raises(ValueError, match=f"create_model: .*got '{name}'; nearest: internimage_"):
        internimage.create_model(name)


@pytest.mark.parametrize("name", [None, 5, b"internimage_t"])
def test_a_name_that_is_no_text_is_named(name):
    with pytest.raises(TypeError, match="create_model: expected name = text, got"):
        internimage.create_model(name)


@pytest.mark.parametrize("out_indices", [1, "01", None, {0, 1}])
def test_out_indices_that_are_no_sequence_are_named(out_indices):
    with pytest.raises(TypeError, match="create_model: expected out_indices = a sequence"):
        internimage.create_model("test_t", features_only=True, out_indices=out_indices)


def test_a_size_that_was_never_released_has_no_weights():
    with pytest.raises(ValueError, match="expected a released size, got 'internimage_n'"):
        internimage.create_model("internimage_n", pretrained=True)


def test_out_indices_need_features_only():
    with pytest.raises(ValueError, match="create_model: expected features_only = True"):
        internimage.create_model("internimage_n", out_indices=(3,))


def test_classes_have_no_effect_on_a_backbone():
    with pytest.warns(UserWarning, match="num_classes has no effect beside features_only"):
        internimage.create_model("internimage_test_t", features_only=True, num_classes=7)


@pytest.mark.parametrize("name", ["internimage_test_t", "internimage_l_22k_192to384"])
@pytest.mark.filterwarnings("error")
def test_a_backbone_without_further_arguments_warns_of_nothing(name):
    with torch.device("meta"):
        internimage.create_model(name, features_only=True)


def test_a_variant_checks_its_groups():
    message = r"Variant: expected groups\[1\] to divide 32 channels, got 5"
    with pytest.raises(ValueError, match=message):
        internimage.Variant(
            channels=16, depths=(1, 1), groups=(2, 5), drop_path_rate=0.0, image_size=32
        )


@pytest.fixture
def small_release(monkeypatch, tmp_path, fill):
    """Return a function that releases a tiny model with some number of classes."""

    def release(num_classes: int) -> internimage.InternImage:
        model = fill(internimage.create_model("internimage_test_t", num_classes=num_classes))
        internimage.save_checkpoint(model, tmp_path / "model.safetensors")
        entry = hub.ReleasedModel(
            name="internimage_test_t_release",
            variant="internimage_test_t",
            num_classes=num_classes,
            image_size=32,
            pretraining="none",
            repository="somebody/internimage_test_t_release",
        )
        monkeypatch.setitem(hub.RELEASED, entry.name, entry)
        monkeypatch.setattr(hub, "_RELEASED", (entry,))
        monkeypatch.setattr(
            "internimage.checkpoint.download", lambda name: tmp_path / "model.safetensors"
        )
        return model

    return release


@pytest.mark.parametrize("name", ["internimage_test_t_release", "internimage_test_t", "test_t"])
def test_pretrained_weights_arrive_in_the_model(name, small_release):
    expected = small_release(1000)
    model = internimage.create_model(name, pretrained=True)
    torch.testing.assert_close(dict(model.state_dict()), dict(expected.state_dict()))


@pytest.mark.parametrize("num_classes", [5, 0])
def test_other_classes_keep_the_pretrained_trunk_and_get_a_fresh_head(num_classes, small_release):
    expected = small_release(1000)
    model = internimage.create_model("test_t", pretrained=True, num_classes=num_classes)
    torch.testing.assert_close(model.conv_head[0].weight, expected.conv_head[0].weight)
    assert model.num_classes == num_classes


def test_pretrained_22k_weights_serve_1k_classes(small_release):
    expected = small_release(21841)
    name = "internimage_test_t_release"
    model = internimage.create_model(name, pretrained=True, num_classes=1000)
    torch.testing.assert_close(model.head.weight, expected.head.weight[imagenet_1k_rows()])


def test_a_pretrained_backbone_takes_the_trunk(small_release):
    expected = small_release(1000)
    model = internimage.create_model("test_t", pretrained=True, features_only=True)
    torch.testing.assert_close(model.patch_embed.conv1.weight, expected.patch_embed.conv1.weight)


@pytest.mark.parametrize(
    ("name", "metaformer", "expected"),
    [
        ("test_t", True, True),
        ("test_t", None, False),
        ("internimage_h_22ktoinat18_384", None, True),
        ("internimage_h_22ktoinat18_384", False, False),
    ],
)
def test_any_size_may_have_the_metaformer_head(name, metaformer, expected):
    with torch.device("meta"):
        model = internimage.create_model(name, metaformer=metaformer)
    assert isinstance(model, internimage.InternImageMetaFormer) is expected
