"""The backbone in OpenMMLab: the original's fields, its initialisation, freezing, norms, sizes."""

from __future__ import annotations

import warnings

import mmdet.registry
import mmengine.registry
import mmseg.registry
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import convert_sync_batchnorm
from torch import nn

import internimage
from internimage.hub import PTH_REPOSITORY
from internimage.integrations.openmmlab import InternImageBackbone, backbone
from internimage.variants import get_variant

ORIGINAL_FIELDS = dict(
    type="InternImage",
    core_op="DCNv3",
    channels=16,
    depths=[1, 1, 2, 1],
    groups=[1, 2, 4, 8],
    mlp_ratio=4.0,
    drop_path_rate=0.0,
    norm_layer="LN",
    layer_scale=None,
    offset_scale=1.0,
    post_norm=False,
    with_cp=False,
    dw_kernel_size=5,
    res_post_norm=True,
    level2_post_norm=True,
    level2_post_norm_block_ids=[0, 1],
    center_feature_scale=True,
    out_indices=(0, 1, 2, 3),
    frozen_stages=-1,
    init_cfg=None,
)


def build(arch="test_t", **fields):
    torch.manual_seed(0)
    return mmengine.registry.MODELS.build(dict(type="InternImage", arch=arch) | fields)


def initialised(path, **options):
    """A backbone after ``init_weights`` from a file."""
    model = build(init_cfg=dict(type="Pretrained", checkpoint=str(path)) | options)
    model.init_weights()
    return model


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(1)
    return internimage.create_model("test_t", num_classes=10)


@pytest.fixture(scope="module")
def checkpoint(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "classifier.pth"
    torch.save({"model": classifier.state_dict()}, path)
    return path


def has_weights_of(model, classifier):
    expected = classifier.state_dict()
    return all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("library", [mmengine, mmdet, mmseg], ids=lambda library: library.__name__)
def test_every_library_of_openmmlab_finds_the_backbone(library):
    assert library.registry.MODELS.get("InternImage") is InternImageBackbone


def test_the_fields_of_the_original_build_what_the_size_does():
    torch.manual_seed(0)
    by_fields = mmengine.registry.MODELS.build(ORIGINAL_FIELDS).eval()
    by_size = build("test_h").eval()
    images = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        for found, expected in zip(by_fields(images), by_size(images), strict=True):
            assert torch.equal(found, expected)


def test_a_field_overrides_the_row_of_the_size():
    assert build().levels[0].blocks[0].gamma1 is None
    gamma = build(layer_scale=1.0).levels[0].blocks[0].gamma1
    assert torch.equal(gamma, torch.ones(16))


@pytest.mark.parametrize("size", ["t", "s", "b", "l", "xl", "h", "g"])
def test_every_released_size_builds_without_a_head(size):
    with torch.device("meta"):
        keys = mmengine.registry.MODELS.build(dict(type="InternImage", arch=size)).state_dict()
        classifier = internimage.create_model(size).state_dict()
    assert keys.keys() <= classifier.keys()
    assert {key.split(".")[0] for key in keys} == {"patch_embed", "levels"}
    assert keys["patch_embed.conv2.weight"].shape[0] == get_variant(size).channels


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (dict(arch="huge"), ValueError, "expected a known model name, got 'huge'"),
        (dict(arch="test_t", channel=16), TypeError, "channel"),
        (dict(channels=63), ValueError, "expected channels % 2 = 0, got 63"),
        (dict(arch="test_t", out_indices=(3, 1)), ValueError, "ascending stage indices"),
        (dict(arch="test_t", frozen_stages=5), ValueError, "expected frozen_stages <= 4, got 5"),
    ],
)
def test_fields_that_do_not_fit_are_an_error(fields, error, message):
    with pytest.raises(error, match=message):
        InternImageBackbone(**fields)


def test_the_field_for_the_other_kernel_warns_that_it_has_no_effect():
    with pytest.warns(UserWarning, match="use_dcn_v4_op has no effect"):
        model = build(use_dcn_v4_op=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = build(use_dcn_v4_op=False)
    assert has_weights_of(model, plain)


# ----------------------------------------------------------------------------------------------
# initialisation


def test_a_classifier_in_a_file_initialises_the_backbone(checkpoint, classifier):
    model = initialised(checkpoint)
    assert has_weights_of(model, classifier)
    assert model.init_report.missing == ()


def test_what_matched_is_logged(checkpoint, monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "_log", lambda level, message, *_, **__: lines.append(message))
    initialised(checkpoint)
    number = len(build().state_dict())
    assert [line for line in lines if f"{number} of {number} tensors from {checkpoint}" in line]


def test_a_detector_initialises_its_backbone_from_the_backbone_of_another(classifier, tmp_path):
    state = {f"backbone.{key}": value for key, value in classifier.state_dict().items()}
    torch.save({"state_dict": state | {"head.x": torch.ones(1)}}, tmp_path / "detector.pth")
    assert has_weights_of(initialised(tmp_path / "detector.pth"), classifier)


def test_layer_scales_that_a_classifier_lacks_keep_their_value(checkpoint, classifier):
    model = build(layer_scale=1.0, init_cfg=dict(type="Pretrained", checkpoint=str(checkpoint)))
    model.init_weights()
    gammas = [p for name, p in model.named_parameters() if name.endswith(("gamma1", "gamma2"))]
    assert len(gammas) == 10 and all(torch.equal(p, torch.ones_like(p)) for p in gammas)
    assert torch.equal(
        model.patch_embed.conv1.weight, classifier.state_dict()["patch_embed.conv1.weight"]
    )


@pytest.mark.parametrize(
    "origin",
    [
        "internimage_t_1k_224",
        f"https://huggingface.co/{PTH_REPOSITORY}/resolve/main/internimage_t_1k_224.pth",
    ],
)
def test_a_released_model_is_meant_by_its_name_or_its_address(origin, checkpoint, monkeypatch):
    asked = []

    def load(model, name, strict):
        asked.append(name)
        return internimage.load_checkpoint(model, checkpoint, strict)

    monkeypatch.setattr(backbone, "load_checkpoint", load)
    initialised(origin)
    assert asked == ["internimage_t_1k_224"]


@pytest.mark.parametrize(
    ("address", "loader"),
    [
        ("https://example.com/internimage_t_1k_224.pth", "download"),
        (f"https://huggingface.co/{PTH_REPOSITORY}/resolve/main/some_detector.pth", "hub"),
    ],
)
def test_another_address_is_downloaded_and_loaded(
    address, loader, checkpoint, classifier, monkeypatch
):
    asked = []

    def fetch(*where):
        asked.append(where)
        return checkpoint

    monkeypatch.setattr(backbone, "download" if loader == "download" else "download_file", fetch)
    assert has_weights_of(initialised(address), classifier)
    assert asked == [(address,) if loader == "download" else (PTH_REPOSITORY, "some_detector.pth")]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"layer1.0.conv1.weight": torch.ones(1)}, "load_checkpoint: expected"),
        (internimage.create_model("test_s", num_classes=10).state_dict(), "of this backbone"),
        (internimage.create_model("n", num_classes=10).state_dict(), "expected"),
    ],
    ids=["nothing matches", "another variant", "another width"],
)
def test_a_checkpoint_of_something_else_is_an_error(state, message, tmp_path):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        initialised(tmp_path / "other.pth")


def test_what_fits_of_another_checkpoint_is_loaded_when_asked_for(tmp_path):
    other = internimage.create_model("test_s", num_classes=10)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    model = initialised(tmp_path / "other.pth", strict=False)
    assert torch.equal(model.patch_embed.conv1.weight, other.patch_embed.conv1.weight)
    assert model.init_report.missing


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth"):
        initialised(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(checkpoint=None), "expected init_cfg with checkpoint = a file"),
        (dict(checkpoint="x.pth", stric=True), "got stric"),
    ],
)
def test_an_init_cfg_that_says_nothing_useful_is_an_error(options, message):
    model = build(init_cfg=dict(type="Pretrained") | options)
    with pytest.raises(ValueError, match=message):
        model.init_weights()


def test_an_init_cfg_without_a_type_is_an_error():
    model = build(init_cfg=dict(checkpoint="x.pth"))
    with pytest.raises(ValueError, match="expected init_cfg with type = .* got {'checkpoint'"):
        model.init_weights()


@pytest.mark.parametrize("field", ["prefix", "map_location"])
def test_fields_of_an_init_cfg_without_effect_warn(field, checkpoint):
    with pytest.warns(UserWarning, match=f"{field} of init_cfg has no effect"):
        model = initialised(checkpoint, **{field: "backbone."})
    assert model.init_report.loaded


def test_other_kinds_of_initialisation_are_those_of_mmengine():
    model = build(init_cfg=dict(type="Constant", layer="Conv2d", val=0.5))
    model.init_weights()
    assert torch.all(model.patch_embed.conv1.weight == 0.5)


def test_without_a_checkpoint_the_offsets_of_dcnv3_stay_zero():
    model = build()
    model.init_weights()
    for name, parameter in model.named_parameters():
        if ".dcn.offset." in name or ".dcn.mask." in name:
            assert not parameter.any(), name


# ----------------------------------------------------------------------------------------------
# training


def test_frozen_stages_neither_learn_nor_drop_and_the_stem_learns():
    model = build(frozen_stages=2, drop_path_rate=0.5).train()
    assert [stage.training for stage in model.levels] == [False, False, True, True]
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"patch_embed", "levels"}
    assert {name[:8] for name in learning if name.startswith("levels")} == {"levels.2", "levels.3"}
    assert model.train() is model


def gradients(model):
    torch.manual_seed(1)
    model.zero_grad()
    sum(y.square().mean() for y in model(torch.randn(2, 3, 40, 36))).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("arch", ["test_t", "test_s", "test_h", "test_g"])
def test_gradient_checkpointing_changes_no_gradient(arch, fill):
    plain, saving = fill(build(arch).float()).float(), build(arch, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    expected, found = gradients(plain.train()), gradients(saving.train())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_batch_norms_become_synchronised_ones_by_the_helper_of_mmengine():
    model = build(norm_layer="BN")
    ordinary = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    converted = convert_sync_batchnorm(model, implementation="torch")
    synchronised = [
        name for name, m in converted.named_modules() if isinstance(m, nn.SyncBatchNorm)
    ]
    assert len(ordinary) == 2 + 3 + 5 and synchronised == ordinary
    with torch.no_grad():  # in evaluation mode both are the same function, on a CPU as well
        images = torch.randn(1, 3, 32, 32)
        expected = build(norm_layer="BN").eval()(images)
        for found, wanted in zip(converted.eval()(images), expected, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("size", [(1, 1), (37, 50), (100, 33)])
def test_maps_of_odd_sizes_are_rounded_up_and_contiguous(size):
    model = build(out_indices=(0, 2, 3)).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, *size))
    assert isinstance(maps, list)
    for y, stage in zip(maps, (0, 2, 3), strict=True):
        shape = [-(-side // 2 ** (stage + 2)) for side in size]
        assert list(y.shape) == [2, 16 * 2**stage, *shape] and y.is_contiguous()
