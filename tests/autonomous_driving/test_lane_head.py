"""The head of OpenLane-V2: its losses told in loops, and what it answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from internimage.integrations.openmmlab.driving import DrivingSample, OpenLaneHead
from internimage.integrations.openmmlab.driving.bezier import bernstein
from internimage.integrations.openmmlab.driving.data.openlane_layout import lanes_to_openlane
from internimage.integrations.openmmlab.driving.lanes.elements import image_meta, true_elements
from internimage.integrations.openmmlab.driving.metrics.openlane import evaluate_openlane

LANE_RANGE = (-20.0, -10.0, -2.0, 20.0, 10.0, 2.0)
UNPADDED, PADDED = (40, 60), (64, 64)
SCALE = (1.5, 0.5)


def make_head():
    torch.manual_seed(0)
    small = {"num_queries": 6, "num_layers": 2, "num_heads": 2, "feedforward_channels": 32}
    head = OpenLaneHead(
        LANE_RANGE,
        embed_dims=16,
        lanes={**small, "dropout": 0.0},
        elements={**small, "num_levels": 2, "num_classes": 13, "dropout": 0.0},
    )
    head.init_weights()
    for parameter in head.parameters():  # nothing may be hidden by weights that begin as zeros
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return head.eval()


def make_sample(num_elements, seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.4, (num_elements, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.1, 0.5, (num_elements, 2))], 1)
    # In pixels of the file: the unpadded input over the scale.
    boxes = boxes * np.tile(np.array(UNPADDED)[::-1] / SCALE, 2)
    sample = DrivingSample(
        metainfo={
            "unpadded_shape": UNPADDED,
            "image_shape": PADDED,
            "scale_factors": np.array([SCALE, (1.0, 1.0)]),
        }
    )
    sample.gt_lanes = {
        "control_points": rng.uniform(-9, 9, (3, 15)).astype(np.float32),
        "boxes": boxes.astype(np.float32),
        "attributes": rng.integers(0, 13, num_elements),
        "topology_lclc": rng.integers(0, 2, (3, 3)).astype(np.int8),
        "topology_lcte": rng.integers(0, 2, (3, num_elements)).astype(np.int8),
    }
    return sample


def make_inputs(batch):
    generator = torch.Generator().manual_seed(1)
    bev = torch.randn(batch, 16, 5, 10, generator=generator)
    features = [torch.randn(batch, 2, 16, 64 // s, 64 // s, generator=generator) for s in (8, 16)]
    return bev, features


def focal(probability, positive):
    if positive:
        return -0.25 * (1 - probability) ** 2 * np.log(probability)
    return -0.75 * probability**2 * np.log(1 - probability)


@torch.no_grad()
def test_lane_losses_are_those_of_the_best_of_all_assignments():
    head, samples = make_head(), [make_sample(2, 0), make_sample(1, 1)]
    inputs = make_inputs(2)
    outputs = head(*inputs, samples)[0]
    losses = head.loss(*inputs, samples)
    for layer, name in enumerate(["lane.d0", "lane"]):
        class_loss = control_loss = 0.0
        for index, sample in enumerate(samples):
            truth = sample.gt_lanes["control_points"]
            scores = outputs.logits[layer, index, :, 0].sigmoid().numpy()
            control = outputs.control_points[layer, index].numpy()

            def cost(queries, truth=truth, scores=scores, control=control):
                return sum(
                    1.5 * (focal(scores[query], True) - focal(scores[query], False))
                    + 0.0075 * np.abs(control[query] - truth[lane]).sum()
                    for lane, query in enumerate(queries)
                )

            best = min(itertools.permutations(range(6), 3), key=cost)
            class_loss += sum(focal(score, query in best) for query, score in enumerate(scores))
            control_loss += sum(
                np.abs(control[query] - truth[lane]).sum() for lane, query in enumerate(best)
            )
        assert losses[f"{name}.loss_cls"].item() == pytest.approx(1.5 * class_loss / 6, rel=1e-4)
        assert losses[f"{name}.loss_control"].item() == pytest.approx(
            0.0075 * control_loss / 6, rel=1e-4
        )


@torch.no_grad()
def test_relations_are_learnt_of_what_the_queries_match():
    head, sample = make_head(), make_sample(2, 0)
    inputs = make_inputs(1)
    lanes, elements, lane_pairs, element_pairs = head(*inputs, [sample])
    truth = sample.gt_lanes
    matches = head._match_lanes(
        lanes.logits[-1, 0], lanes.control_points[-1, 0], torch.tensor(truth["control_points"])
    )
    _, (element_matches,) = head.elements.losses(elements, [sample])
    losses = head.loss(*inputs, [sample])
    for name, key, pairs, columns in (
        ("lanes", "topology_lclc", lane_pairs, matches),
        ("elements", "topology_lcte", element_pairs, element_matches),
    ):
        expected = 0.0
        for row, column in np.ndindex(6, 6):
            matched = matches[row] >= 0 and columns[column] >= 0
            related = matched and truth[key][matches[row], columns[column]] == 1
            expected += focal(pairs[0, row, column].sigmoid().item(), related) / 36
        assert losses[f"relation.loss_{name}"].item() == pytest.approx(5 * expected, rel=1e-4)


@torch.no_grad()
def test_boxes_are_learnt_in_pixels_of_the_unpadded_input():
    sample = make_sample(3, 0)
    truth = true_elements(sample, torch.zeros(1))
    expected = sample.gt_lanes["boxes"] * np.tile(SCALE, 2)
    np.testing.assert_allclose(truth.bboxes, expected, rtol=1e-6)
    assert image_meta(sample) == {"img_shape": UNPADDED, "batch_input_shape": PADDED}
    # A detector that is right has no loss of boxes but where nothing was to be found.
    head = make_head()
    outputs = head(*make_inputs(1), [sample])[1]
    fractions = truth.bboxes / torch.tensor(UNPADDED[::-1]).repeat(2)
    centre, size = (fractions[:, :2] + fractions[:, 2:]) / 2, fractions[:, 2:] - fractions[:, :2]
    outputs.boxes[:, 0, [4, 0, 2]] = torch.cat([centre, size], 1)
    outputs.logits[:] = -5
    outputs.logits[:, 0, [4, 0, 2], torch.tensor(sample.gt_lanes["attributes"])] = 5
    losses, (match,) = head.elements.losses(outputs, [sample])
    assert match.tolist() == [1, -1, 2, -1, 0, -1]
    assert losses["loss_bbox"].item() == pytest.approx(0, abs=1e-6)
    assert losses["d0.loss_iou"].item() == pytest.approx(0, abs=1e-5)


@torch.no_grad()
def test_frames_without_an_element_say_nothing_of_elements():
    head = make_head()
    bev, features = make_inputs(2)
    with_elements, without = make_sample(2, 0), make_sample(0, 1)
    both = head.loss(bev, features, [with_elements, without])
    first = head.loss(bev[:1], [level[:1] for level in features], [with_elements])
    second = head.loss(bev[1:], [level[1:] for level in features], [without])
    for name in both:
        if name.startswith("element") or name == "relation.loss_elements":
            assert both[name].item() == pytest.approx(first[name].item(), rel=1e-4)
            assert second[name].item() == 0
        elif name == "relation.loss_lanes":
            assert second[name].item() > 0


@torch.no_grad()
def test_answers_come_by_falling_score_with_their_relations():
    head, sample = make_head(), make_sample(2, 0)
    inputs = make_inputs(1)
    lanes, elements, lane_pairs, element_pairs = head(*inputs, [sample])
    (answered,) = head.predict(*inputs, [sample])
    answer = answered.pred_lanes
    raw = lanes.logits[-1, 0, :, 0].sigmoid().numpy()
    assert (np.diff(answer["scores"]) <= 0).all()
    assert (np.diff(answer["box_scores"]) <= 0).all()
    assert not (np.diff(raw) <= 0).all()  # or the order of the queries would do
    for place, score in enumerate(answer["scores"]):
        query = int(np.flatnonzero(raw == score)[0])
        control = lanes.control_points[-1, 0, query].view(5, 3).numpy()
        np.testing.assert_allclose(answer["lanes"][place], bernstein(11) @ control, atol=1e-4)
        for other, other_score in enumerate(answer["scores"]):
            column = int(np.flatnonzero(raw == other_score)[0])
            assert answer["topology_lclc"][place, other] == pytest.approx(
                lane_pairs[0, query, column].sigmoid().item()
            )
        for other, other_score in enumerate(answer["box_scores"]):
            best = elements.logits[-1, 0].sigmoid().amax(1).numpy()
            column = int(np.flatnonzero(best == other_score)[0])
            assert answer["topology_lcte"][place, other] == pytest.approx(
                element_pairs[0, query, column].sigmoid().item()
            )
            x, y, w, h = elements.boxes[-1, 0, column].tolist()
            corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).clip(0, 1)
            pixels = corners * np.tile(np.array(UNPADDED)[::-1] / SCALE, 2)
            np.testing.assert_allclose(answer["boxes"][other], pixels, rtol=1e-4)


@torch.no_grad()
def test_what_lies_in_the_padding_does_not_reach_the_elements():
    head, sample = make_head(), make_sample(2, 0)
    bev, features = make_inputs(1)
    before = head(bev, features, [sample])[1]
    for level, stride in zip(features, (8, 16), strict=True):
        level[..., -(-UNPADDED[0] // stride) :, :] += 7
    after = head(bev, features, [sample])[1]
    np.testing.assert_allclose(after.boxes, before.boxes, atol=1e-6)
    for level in features:
        level[..., :2, :2] += 7
    assert not torch.allclose(head(bev, features, [sample])[1].boxes, before.boxes, atol=1e-3)


def test_every_weight_learns():
    head = make_head().train()
    losses = head.loss(*make_inputs(2), [make_sample(2, 0), make_sample(0, 1)])
    sum(loss for loss in losses.values()).backward()
    still = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_diverged_weights_end_in_a_loss_that_is_no_number():
    head = make_head()
    bev, features = make_inputs(1)
    losses = head.loss(bev * np.nan, [level * np.nan for level in features], [make_sample(2, 0)])
    assert losses["lane.loss_cls"].isnan()
    assert losses["element.loss_cls"].isnan()


@torch.no_grad()
@pytest.mark.parametrize(("num_lanes", "num_elements"), [(0, 2), (3, 0), (0, 0)])
def test_frames_without_lanes_or_elements_are_learnt_answered_and_scored(num_lanes, num_elements):
    head, sample = make_head(), make_sample(num_elements, 0)
    lanes = sample.gt_lanes
    sample.gt_lanes = {
        **lanes,
        "lanes": [bernstein(11) @ c.reshape(5, 3) for c in lanes["control_points"][:num_lanes]],
        "control_points": lanes["control_points"][:num_lanes],
        "topology_lclc": lanes["topology_lclc"][:num_lanes, :num_lanes],
        "topology_lcte": lanes["topology_lcte"][:num_lanes],
    }
    inputs = make_inputs(1)
    assert all(loss.isfinite() for loss in head.loss(*inputs, [sample]).values())
    (answered,) = head.predict(*inputs, [sample])
    truth = lanes_to_openlane(answered.gt_lanes, scored=False)
    answer = lanes_to_openlane(answered.pred_lanes, scored=True)
    scores = evaluate_openlane([(truth, answer)])
    assert all(0 <= score <= 1 for score in scores.values())
    if not num_elements:
        assert scores["TOP_lt"] == 0


def test_half_precision_learns_and_answers():
    head, sample = make_head(), make_sample(2, 0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = head.loss(*make_inputs(1), [sample])
        (answered,) = head.predict(*make_inputs(1), [sample])
    (exact,) = head.predict(*make_inputs(1), [make_sample(2, 0)])
    assert all(loss.isfinite() for loss in losses.values())
    np.testing.assert_allclose(answered.pred_lanes["scores"], exact.pred_lanes["scores"], atol=0.05)


@pytest.mark.parametrize(
    "range_", [(-1.0, -1.0, 1.0, 1.0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 1, 1, float("nan"))]
)
def test_a_range_that_is_none_is_refused(range_):
    with pytest.raises(ValueError, match="LaneDecoder: expected range = x0, y0, z0, x1, y1, z1"):
        OpenLaneHead(range_, embed_dims=16)
