"""The parts of the vectorised map: the original's forward record, and decoding from a cache."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from internimage.integrations.openmmlab.driving.convert import convert_driving
from internimage.integrations.openmmlab.driving.geometry import BEVGrid
from internimage.integrations.openmmlab.driving.vector_map.canvas import END, MapCanvas
from internimage.integrations.openmmlab.driving.vector_map.generator import (
    PolylineGenerator,
    generator_loss,
)
from internimage.integrations.openmmlab.driving.vector_map.head import VectorMapHead
from internimage.integrations.openmmlab.driving.vector_map.ipm import (
    IPMView,
    look_up,
    plane_points,
)
from tests.autonomous_driving.forward_records import (
    RECORDS,
    hashed,
    hashed_input,
    read_forward_record,
)


@pytest.fixture(scope="module")
def record():
    return read_forward_record("vectormap_forward")


@pytest.fixture(scope="module")
def head(record):
    """Return the head of the record with its weights, by way of the converter."""
    small = {"embed_dims": 64, "num_layers": 2, "feedforward_channels": 128}
    head = VectorMapHead(
        32,
        canvas={"cells": (20, 10)},
        detector={**small, "num_queries": 6},
        generator={**small, "max_positions": 40},
        max_elements=5,
        max_vertices=12,
    )
    weights = dict(record[1])
    # Branches are shared; the record's value is that of the last name.
    for key in [key for key in weights if "pre_branches" in key and ".0." in key]:
        kind = key.split(".")[3]
        weights[key] = weights[key.replace(f"{kind}.0", f"{kind}.1", 1)]
    weights["backbone.img_backbone.x"] = torch.zeros(1)  # by which the converter knows the model
    renamed = convert_driving(weights)
    renamed.pop("backbone.x")
    head.load_state_dict({key.removeprefix("head."): value for key, value in renamed.items()})
    return head.eval()


def test_elements_are_those_of_the_original(record, head):
    arrays, _ = record
    with torch.no_grad():
        scores, boxes = head.detector(hashed_input(arrays, "bev", (2, 32, 5, 8)))
    np.testing.assert_allclose(scores, arrays["out_scores"], atol=2e-4)
    np.testing.assert_allclose(boxes, arrays["out_lines"], atol=2e-4)
    best, labels, corners = head.select(scores[-1], boxes[-1])
    np.testing.assert_allclose(best, arrays["out_top_scores"], atol=2e-4)
    np.testing.assert_array_equal(labels, arrays["out_top_labels"])
    np.testing.assert_array_equal(corners.flatten(0, 1).round(), arrays["out_top_boxes"])


def test_tokens_are_as_likely_as_in_the_original(record, head):
    arrays, _ = record
    with torch.no_grad():
        logits = head.generator(
            hashed_input(arrays, "bev", (2, 32, 5, 8)),
            np.bincount(arrays["in_lines_bs_idx"]).tolist(),
            torch.from_numpy(arrays["in_lines_cls"]),
            torch.from_numpy(arrays["in_bbox_flat"]),
            torch.from_numpy(arrays["in_polylines"]),
        )
    possible = arrays["out_logits"] > -1e8
    np.testing.assert_array_equal(logits > -1e8, possible)
    np.testing.assert_allclose(logits[possible], arrays["out_logits"][possible], atol=2e-4)
    tokens, weights, mask = (
        torch.from_numpy(arrays[f"in_polyline{name}"]) for name in ("s", "_weights", "_masks")
    )
    loss = generator_loss(logits, tokens, weights * mask)
    assert loss == pytest.approx(float(arrays["out_loss"]), abs=2e-4)


def test_planes_see_the_features_that_they_see_in_the_original(record):
    arrays, _ = record
    grid = BEVGrid((-30, -15, -1.1, 30, 15, 1.1), (10, 20))
    points = plane_points(grid, (-1.1, 0.0, 0.5, 1.1))
    features = torch.from_numpy(hashed(f"{arrays['salt']}:camfeat", (7, 8, 16, 30)))
    ego2img = torch.from_numpy(arrays["in_ego2img"])[None]
    image_shape = tuple(arrays["in_img_hw"].tolist())
    seen = look_up(features[None].float(), points, ego2img, image_shape)
    np.testing.assert_allclose(seen, arrays["out_ipm"][:, :8], atol=2e-4)
    np.testing.assert_allclose(points.permute(3, 0, 1, 2), arrays["out_ipm"][0, 8:], atol=2e-4)
    by_some_camera = look_up(torch.ones(1, 7, 1, 16, 30), points, ego2img, image_shape) > 0
    np.testing.assert_array_equal(by_some_camera, arrays["out_ipm_mask"])


def boxes_and_labels(generator, count):
    labels = torch.randint(0, 3, (count,), generator=generator)
    return labels, torch.randint(0, 10, (count, 4), generator=generator)


def write_without_cache(model, bev, counts, labels, boxes, max_vertices):
    """Return what ``generate`` should, with a whole pass over every sequence for each token."""
    tokens = torch.zeros(len(boxes), 2 * max_vertices, dtype=torch.long)
    ended = torch.zeros(len(boxes), dtype=torch.bool)
    for step in range(2 * max_vertices):
        logits = model(bev, counts, labels, boxes, tokens[:, : step + 1])
        chosen = logits[:, step].argmax(dim=-1)
        tokens[:, step] = torch.where(ended, END, chosen)
        ended |= chosen == END
    return tokens


@torch.no_grad()
def test_polylines_written_with_the_cache_are_those_written_without(record, head):
    arrays, _ = record
    bev = hashed_input(arrays, "bev", (2, 32, 5, 8))
    labels, boxes = boxes_and_labels(torch.Generator().manual_seed(1), 24)
    lengths = set()
    for seed in range(4):
        torch.manual_seed(seed)
        model = PolylineGenerator(
            32, MapCanvas(cells=(20, 10)), embed_dims=64, num_layers=2, max_positions=12
        ).eval()
        torch.nn.init.constant_(model.to_logits.bias[:1], 0.5)  # some of them end early
        for layer in model.layers:
            for index in "123":
                torch.nn.init.constant_(getattr(layer, f"res_weight{index}"), 1.0)
        written = model.generate(bev, [7, 17], labels, boxes, max_vertices=12)
        plain = write_without_cache(model, bev, [7, 17], labels, boxes, 12)
        assert torch.equal(written, plain)
        assert len({tuple(row) for row in written.tolist()}) > 4  # they are not all alike
        lengths.update((written != END).sum(dim=1).tolist())
    assert len(lengths) > 2


@torch.no_grad()
def test_a_sequence_does_not_see_the_sequences_beside_it_nor_other_images(record, head):
    arrays, _ = record
    bev = hashed_input(arrays, "bev", (2, 32, 5, 8))
    labels, boxes = boxes_and_labels(torch.Generator().manual_seed(2), 6)
    together = head.generator.generate(bev, [2, 4], labels, boxes, max_vertices=6)
    alone = [
        head.generator.generate(
            bev[int(i >= 2)][None], [1], labels[i : i + 1], boxes[i : i + 1], max_vertices=6
        )
        for i in range(6)
    ]
    assert torch.equal(together, torch.cat(alone))


@torch.no_grad()
def test_drawn_tokens_are_among_the_likeliest_and_follow_the_seed(record, head):
    arrays, _ = record
    bev = hashed_input(arrays, "bev", (2, 32, 5, 8))
    labels, boxes = boxes_and_labels(torch.Generator().manual_seed(3), 40)
    arguments = (bev, [20, 20], labels, boxes)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(head.generator.generate(*arguments, max_vertices=4, top_p=0.5))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    probabilities = head.generator(*arguments, runs[0][:, :1]).softmax(dim=-1)[:, 0]
    for row, token in zip(probabilities, runs[0][:, 0], strict=True):
        assert row[row > row[token]].sum() < 0.5
    likeliest = head.generator.generate(*arguments, max_vertices=4, top_p=1e-6)
    assert torch.equal(likeliest, head.generator.generate(*arguments, max_vertices=4))


def test_no_polyline_for_no_box(head):
    nothing = torch.zeros(0, 4, dtype=torch.long)
    tokens = head.generator.generate(torch.zeros(1, 32, 5, 8), [0], nothing[:, 0], nothing)
    assert tokens.shape == (0, 128)


def test_all_names_of_the_original_model_have_a_place():
    content = gzip.decompress((RECORDS / "keys_vectormapnet_intern.json.gz").read_bytes())
    keys = json.loads(content)["keys"]
    with torch.device("meta"):
        parts = {
            "view": IPMView({"range": (-30, -15, -1.1, 30, 15, 1.1), "shape": (100, 200)}),
            "head": VectorMapHead(128),
        }
        ours = {
            f"{part}.{key}": tuple(value.shape)
            for part, module in parts.items()
            for key, value in module.state_dict().items()
        }
        weights = {key: torch.empty(shape) for key, shape in keys.items()}
    converted = {
        key: tuple(value.shape)
        for key, value in convert_driving(weights).items()
        if key.startswith(("view.", "head."))
    }
    assert converted == ours
