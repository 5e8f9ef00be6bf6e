"""The model equals the original: its numbers, its keys, its parameter counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import internimage

RECORDS = [
    "pre_norm",
    "pre_norm_layer_scale",
    "post_norm_layer_scale",
    "remove_center",
    "h_like",
    "g_like",
    "internimage_t",
]
TOLERANCE = 1e-4

# Parameters of the backbone alone, with the 1,000-class head, with the 21,841-class head.
PARAMETERS = {
    "t": (28_754_672, 29_918_424, 45_945_153),
    "s": (48_502_560, 50_079_880, 70_108_081),
    "b": (94_909_920, 97_461_832, 125_492_977),
    "l": (218_952_370, 223_334_810, 263_370_371),
    "xl": (328_971_228, 334_819_780, 382_858_285),
    "h": (1_073_122_480, 1_089_636_760, 1_105_663_489),
    "g": (3_052_781_184, 3_076_373_352, 3_092_400_081),
}


@pytest.mark.parametrize("name", RECORDS)
def test_logits_and_stage_maps_equal_the_original(name, parity_record, fill, image):
    record, expected = parity_record(name)
    model = fill(internimage.InternImage(**record["config"]).double().eval())
    x = image(record["batch"], record["height"], record["width"], record["image_seed"])
    with torch.no_grad():
        logits = model(x).numpy()
        maps = model.forward_intermediates(x, intermediates_only=True, output_fmt="NHWC")
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=TOLERANCE)
    for i, stage in enumerate(maps, start=1):
        values = stage.numpy()
        for statistic, value in {
            "mean": values.mean((1, 2)),
            "std": values.std((1, 2)),
            "corner": values[:, :2, :2, :8],
        }.items():
            np.testing.assert_allclose(
                value, expected[f"stage{i}_{statistic}"], rtol=0, atol=TOLERANCE
            )


@pytest.mark.parametrize("size", PARAMETERS)
def test_keys_and_their_order_and_shapes_equal_the_released_ones(size, released_keys):
    with torch.device("meta"):
        model = internimage.create_model(f"internimage_{size}")
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert list(ours.items()) == list(released_keys(size).items())


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameter_counts_equal_the_published_ones(size):
    backbone, with_1k, with_22k = PARAMETERS[size]
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in internimage.create_model(size, **kwargs).parameters())
            for kwargs in ({"features_only": True}, {}, {"num_classes": 21841})
        ]
    assert counts == [backbone, with_1k, with_22k]
