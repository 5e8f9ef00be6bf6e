"""Every config builds its model, with the released detectors' weights by name and shape."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import internimage.integrations.openmmlab.detection  # noqa: F401  (registers the models)
from internimage.integrations.openmmlab import convert_state_dict
from tests.detection.config_facts import CONFIGS, build_without_storage
from tests.released_records import read_json

RECORDED = read_json("dense/keys")["detection"]
UNRECORDED = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in CONFIGS.glob("*/*.py")
    if path.parent.name not in ("_base_", "digit_scenes")
    and str(path.relative_to(CONFIGS).with_suffix("")) not in RECORDED
)

PARAMETERS = {
    "bdd100k/dino_4scale_cbinternimage_h_objects365_bdd100k_ss": "2.18B",
    "coco/dino_4scale_cbinternimage_g_objects365_coco_ss": "6.15B",
    "coco/dino_4scale_cbinternimage_g_objects365_coco_tta": "6.15B",
    "coco/dino_4scale_cbinternimage_h_objects365_coco_tta": "2.18B",
    "lvis/dino_4scale_cbinternimage_h_objects365_lvis_val_tta": "2.18B",
    "objects365/dino_4scale_cbinternimage_h_objects365": "2.18B",
    "objects365/dino_4scale_internimage_h_objects365": "1.10B",
}


@pytest.mark.parametrize("name", sorted(RECORDED))
@pytest.mark.filterwarnings("ignore:InternImage. use_dcn_v4_op")
def test_the_weights_of_the_released_model_fit_all_of_them_and_nothing_else(name: str):
    released = {key: torch.empty(shape, device="meta") for key, shape in RECORDED[name].items()}
    converted = {key: tuple(v.shape) for key, v in convert_state_dict(released).items()}
    model = build_without_storage(name)
    assert {key: tuple(v.shape) for key, v in model.state_dict().items()} == converted


@pytest.mark.parametrize("name", UNRECORDED)
def test_a_model_without_a_released_one_has_the_parameters_that_the_tables_say(name: str):
    parameters = sum(p.numel() for p in build_without_storage(name).parameters())
    assert f"{parameters / 1e9:.2f}B" == PARAMETERS[name]


def test_the_kernel_of_the_original_is_named_in_a_warning_that_it_changes_nothing():
    with pytest.warns(UserWarning, match="use_dcn_v4_op has no effect"):
        build_without_storage("coco/mask_rcnn_internimage_t_fpn_1x_coco_with_dcnv4")


def test_the_config_for_boxes_alone_builds_and_takes_a_released_mask_r_cnn_but_for_its_masks(
    tmp_path: Path,
):
    readme = (CONFIGS.parent / "README.md").read_text()
    start = readme.index("    _base_ = [")
    text = textwrap.dedent(readme[start : readme.index("At the top", start)])
    path = tmp_path / "boxes.py"
    path.write_text(text.replace("../detection/configs", str(CONFIGS)))
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        model = MODELS.build(config.model)
    released = RECORDED["coco/mask_rcnn_internimage_t_fpn_1x_coco"]
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == {
        key: shape for key, shape in released.items() if ".mask_head." not in key
    }
    steps = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert steps[:2] == ["LoadImageFromFile", "LoadAnnotations"]
    assert "with_mask" not in config.train_dataloader.dataset.pipeline[1]
