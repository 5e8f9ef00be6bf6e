"""Masks of instances are pasted as mmdet pastes them and written as COCO writes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from pycocotools import mask as coco

from internimage.runtime.masks import encode_mask, paste_mask

SIZE = (60, 90)


def pasted_by_mmdet(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    found, _ = _do_paste_mask(
        torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None], *SIZE, skip_empty=False
    )
    return found[0].numpy()


@pytest.mark.parametrize(
    "box",
    [
        (10.0, 5.0, 50.0, 45.0),
        (10.3, 5.7, 50.1, 45.9),
        (0.0, 0.0, 90.0, 60.0),
        (80.2, 50.4, 89.9, 59.6),
        (20.0, 20.0, 21.2, 20.9),
        (-4.5, -3.0, 12.0, 9.5),
        (70.0, 40.0, 95.0, 66.0),
    ],
)
def test_a_mask_is_pasted_as_mmdet_pastes_it(box):
    mask = np.random.default_rng(0).random((28, 28)).astype(np.float32)
    corners = np.array(box, np.float32)
    expected = pasted_by_mmdet(mask, corners)
    found = paste_mask(mask, corners, SIZE, 0.5)
    clear = np.abs(expected - 0.5) > 1e-5  # of the others the last bit decides
    assert clear.mean() > 0.99
    assert np.array_equal(found[clear], (expected >= 0.5)[clear])


@pytest.mark.parametrize("box", [(30.0, 30.0, 30.0, 30.0), (200.0, 10.0, 300.0, 50.0)])
def test_a_box_without_extent_or_beside_the_image_is_an_empty_mask_or_a_point(box):
    found = paste_mask(np.ones((28, 28), np.float32), np.array(box, np.float32), SIZE, 0.5)
    assert found.shape == SIZE
    assert found.sum() <= 9


def test_masks_are_written_as_coco_writes_them():
    generator = np.random.default_rng(0)
    masks = [np.zeros((7, 9), bool), np.ones((7, 9), bool), np.eye(40, dtype=bool)]
    for share in (0.02, 0.5, 0.98):
        masks.append(generator.random((70, 50)) < share)
    blob = np.zeros((600, 800), bool)
    blob[100:500, 3:790] = True
    masks += [blob, ~blob]
    for mask in masks:
        expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert encode_mask(mask) == expected
