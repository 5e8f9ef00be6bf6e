"""What the head of a vectorised map learns and predicts, against loops and by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

import internimage.integrations.openmmlab.driving  # noqa: F401  (registers)
from internimage.integrations.openmmlab.driving.sample import DrivingSample
from internimage.integrations.openmmlab.driving.vector_map.ipm import IPMView, look_up
from internimage.integrations.openmmlab.driving.vector_map.matching import (
    KeyPointLoss,
    match_elements,
)
from internimage.integrations.openmmlab.driving.vector_map.targets import encode_elements

SMALL = {"embed_dims": 16, "num_layers": 2, "feedforward_channels": 16, "dropout_rate": 0.0}


def make_head(**options):
    torch.manual_seed(0)
    config = {
        "type": "VectorMapHead",
        "in_channels": 8,
        "detector": {**SMALL, "num_queries": 5},
        "generator": {**SMALL, "max_positions": 20},
        "max_elements": 4,
        "max_vertices": 6,
    }
    head = MODELS.build({**config, **options})
    head.init_weights()
    return head


def make_sample(*lines):
    """Return a sample with lines of pairs (label, points)."""
    sample = DrivingSample(metainfo={"token": "17"})
    truth = {
        "polylines": [np.array(points, float) for _, points in lines],
        "labels": np.array([label for label, _ in lines], int),
    }
    sample.set_field(truth, "gt_polylines")
    return sample


def overlap(first, second):
    """Return the generalised IoU of two boxes."""
    (a, b, c, d), (e, f, g, h) = first, second
    inner = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
    union = (c - a) * (d - b) + (g - e) * (h - f) - inner
    hull = (max(c, g) - min(a, e)) * (max(d, h) - min(b, f))
    return inner / union - (hull - union) / hull


def test_the_matching_has_the_least_cost_of_all():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        scores = torch.randn(4, 3, generator=generator)
        boxes = torch.rand(4, 4, generator=generator) * torch.tensor([200, 100, 200, 100])
        low = torch.rand(3, 2, generator=generator) * 90
        targets = torch.cat([low, low + 1 + 50 * torch.rand(3, 2, generator=generator)], dim=1)
        labels = torch.tensor([0, 2, 2])
        p = scores.double().sigmoid()
        costs = np.zeros((4, 3))
        for query in range(4):
            x1, y1, x2, y2 = boxes[query].tolist()
            ordered = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            for element in range(3):
                q = float(p[query, labels[element]])
                focal = -0.25 * (1 - q) ** 2 * np.log(q) + 0.75 * q**2 * np.log(1 - q)
                distance = float((boxes[query] - targets[element]).abs().sum())
                costs[query, element] = (
                    2 * focal + 0.1 * distance - overlap(ordered, targets[element].tolist())
                )
        queries, elements = match_elements(scores, boxes, labels, targets)
        best = min(
            sum(costs[query, element] for element, query in enumerate(chosen))
            for chosen in permutations(range(4), 3)
        )
        got = sum(costs[q, e] for q, e in zip(queries.tolist(), elements.tolist(), strict=True))
        assert got == pytest.approx(best, abs=1e-4)


def test_the_losses_of_elements_are_those_told_in_loops():
    torch.manual_seed(1)
    scores, boxes = torch.randn(2, 2, 4, 3), torch.rand(2, 2, 4, 4) * 50
    labels = [torch.tensor([1, 0]), torch.tensor([], dtype=torch.long)]
    targets = [torch.tensor([[1.0, 2, 30, 40], [5, 5, 20, 25]]), torch.zeros(0, 4)]
    losses = KeyPointLoss()(scores, boxes, labels, targets)
    for layer, prefix in ((0, "d0."), (1, "")):
        queries, elements = match_elements(scores[layer, 0], boxes[layer, 0], labels[0], targets[0])
        wanted = torch.zeros(2, 4, 3)
        wanted[0, queries, labels[0][elements]] = 1
        p = scores[layer].sigmoid()
        likely = torch.where(wanted > 0, p, 1 - p)
        alpha = torch.where(wanted > 0, 0.25, 0.75)
        focal = (-alpha * (1 - likely) ** 2 * likely.log()).sum()
        error = (boxes[layer, 0, queries] - targets[0][elements]).abs()
        smooth = torch.where(error < 0.5, error**2, error - 0.25)  # beta 0.5
        # Two elements are matched in the whole batch.
        assert losses[f"{prefix}loss_cls"] == pytest.approx(float(2 * focal / 2), rel=1e-5)
        assert losses[f"{prefix}loss_box"] == pytest.approx(
            float(0.1 * smooth.sum() / 4 / 2), rel=1e-5
        )


def test_noise_moves_each_axis_by_its_own_deviation_and_stays_on_the_canvas():
    head = make_head(noise_probability=0.3, noise_std=(4.0, 1.0))
    torch.manual_seed(2)
    numbers = torch.tensor([[100, 50, 120, 60]]).repeat(20000, 1)
    moved = (head.disturb(numbers, 0) - numbers).double()
    for column, deviation in enumerate((4.0, 1.0, 4.0, 1.0)):
        changes = moved[:, column]
        # 0.3 of the numbers get noise; rounding adds a twelfth to its variance.
        expected = 0.3 * (deviation**2 + 1 / 12)
        assert changes.var().item() == pytest.approx(expected, rel=0.1)
    # The y of a box moves by itself, not with its x.
    assert torch.corrcoef(moved.T[:2])[0, 1].abs() < 0.03
    edges = head.disturb(torch.tensor([[0, 0, 199, 99]]).repeat(2000, 1), 0)
    assert edges.amin() == 0 and edges.amax(dim=0).tolist()[2:] == [199, 99]
    tokens = head.disturb(torch.tensor([[1, 1, 200, 100]]).repeat(2000, 1), 1)
    assert tokens.amin() == 1 and tokens.amax(dim=0).tolist()[2:] == [200, 100]
    assert torch.equal(make_head(noise_probability=0.0).disturb(numbers, 0), numbers)


def test_the_generator_learns_clean_tokens_of_all_frames_with_their_weights():
    head = make_head(noise_probability=0.0)
    lines = [(1, [[0, 0], [10, 5], [20, -5]]), (2, [[-30, 3], [5, 9]]), (0, [[1, 1], [4, 4]])]
    samples = [make_sample(lines[0]), make_sample(), make_sample(*lines[1:])]
    bev = torch.randn(3, 8, 4, 6)
    total = weight = 0.0
    for image, (label, points) in zip((0, 2, 2), lines, strict=True):
        (target,) = encode_elements([np.array(points, float)], [label], head.canvas)
        logits = head.generator(
            bev[image][None],
            [1],
            torch.tensor([label]),
            torch.from_numpy(target.box_tokens)[None],
            torch.from_numpy(target.tokens)[None],
        )[0]
        losses = F.cross_entropy(logits, torch.from_numpy(target.tokens), reduction="none")
        total += float((losses.detach().double() * torch.from_numpy(target.weights)).sum())
        weight += target.weights.sum()
    loss = head.loss(bev, None, samples)["loss_polyline"]
    assert float(loss.detach()) == pytest.approx(total / weight, rel=1e-5)


def test_all_weights_learn_and_frames_without_elements_keep_their_gradients():
    head = make_head()
    losses = head.loss(torch.randn(1, 8, 4, 6), None, [make_sample((1, [[0, 0], [10, 5]]))])
    assert set(losses) == {"loss_cls", "loss_box", "d0.loss_cls", "d0.loss_box", "loss_polyline"}
    sum(losses.values()).backward()
    without = [name for name, p in head.named_parameters() if p.grad is None]
    assert without == []
    head.zero_grad()
    losses = head.loss(torch.randn(1, 8, 4, 6), None, [make_sample()])
    assert losses["loss_polyline"] == 0 and losses["loss_box"] == 0 and losses["loss_cls"] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_predictions_are_lines_in_metres_with_the_best_first():
    head = make_head().eval()
    torch.nn.init.constant_(head.generator.to_logits.bias[0], 0.2)  # ends are near
    for layer in head.generator.layers:
        torch.nn.init.constant_(layer.res_weight3, 1.0)
    bev = torch.randn(3, 8, 4, 6)
    samples = [make_sample() for _ in range(3)]
    predicted = head.predict(bev, None, samples)  # with gradients, too
    with torch.no_grad():
        scores, labels, tokens = head(bev)
    lengths = []
    for i, sample in enumerate(predicted):
        elements = sample.pred_polylines
        expected = []
        for row in tokens[i].tolist():
            numbers = row[: row.index(0)] if 0 in row else row
            pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
            expected.append(
                [
                    (
                        min((x - 0.5) / 199 * 62 - 30, 30.0),
                        min((y - 0.5) / 99 * 32 - 15, 15.0),
                    )
                    for x, y in pairs
                ]
            )
        kept = [j for j, line in enumerate(expected) if len(line) >= 2]
        lengths += [len(line) for line in expected]
        for line, j in zip(elements["polylines"], kept, strict=True):
            np.testing.assert_allclose(line, expected[j])
        np.testing.assert_array_equal(elements["labels"], labels[i][kept])
        np.testing.assert_allclose(elements["scores"], scores[i][kept])
        assert (np.diff(elements["scores"]) <= 0).all()
    assert len(lengths) == 3 * 4


def test_a_line_that_ends_at_once_is_none():
    head = make_head().eval()
    torch.nn.init.constant_(head.generator.to_logits.bias[0], 100.0)
    with torch.no_grad():
        (sample,) = head.predict(torch.randn(1, 8, 4, 6), None, [make_sample()])
    assert sample.pred_polylines["polylines"] == [] and len(sample.pred_polylines["scores"]) == 0


def test_what_the_head_cannot_learn_is_named():
    head, bev = make_head(), torch.randn(1, 8, 4, 6)
    with pytest.raises(ValueError, match="expected gt_polylines of frame 17"):
        head.loss(bev, None, [DrivingSample(metainfo={"token": "17"})])
    with pytest.raises(ValueError, match="labels 0 to 2 in frame 17, got \\[3\\]"):
        head.loss(bev, None, [make_sample((3, [[0, 0], [1, 1]]))])
    zigzag = [[x, 5 * (x % 2)] for x in range(21)]
    with pytest.raises(ValueError, match="max_positions = 20 vertices, got 21 in frame 17"):
        head.loss(bev, None, [make_sample((1, zigzag))])


def test_a_polyline_of_as_many_vertices_as_there_are_positions_is_learnt():
    head, bev = make_head(), torch.randn(1, 8, 4, 8)
    zigzag = [[x, 5 * (x % 2)] for x in range(20)]
    loss = head.loss(bev, None, [make_sample((1, zigzag))])["loss_polyline"]
    loss.backward()
    assert head.generator.position_embed.weight.grad[-1].any()


def test_the_generator_counts_vertices_without_the_end():
    generator, bev = make_head().generator, torch.randn(1, 8, 4, 8)
    boxes, label = torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    tokens = torch.ones(1, 2 * 20 + 1, dtype=torch.long)
    assert generator(bev, [1], label, boxes, tokens).shape[:2] == (1, 41)
    more = torch.ones(1, 2 * 21 + 1, dtype=torch.long)
    with pytest.raises(ValueError, match="at most max_positions = 20 vertices, got 21"):
        generator(bev, [1], label, boxes, more)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_probability": 1.5}, "noise_probability <= 1"),
        ({"top_p": 0.0}, "top_p <= 1"),
        ({"max_elements": 0}, "1 or more, got 0"),
        ({"noise_std": (2.0,)}, "noise_std = two numbers"),
        ({"labels_by_length": (3,)}, "labels_by_length within 0 to 2"),
        ({"max_vertices": 21}, "max_positions = 20, got 21"),
        ({"generator": {"embed_dims": 20}}, "multiple of num_heads = 8, got 20"),
    ],
)
def test_settings_of_the_head_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        make_head(**options)


def test_planes_take_the_mean_of_the_cameras_that_see_a_point_and_nothing_of_others():
    torch.manual_seed(0)
    flat = torch.arange(1.0, 4.0).view(1, 3, 1, 1, 1).expand(1, 3, 2, 4, 6)  # camera i shows i + 1
    ahead = torch.tensor([[0, -1.0, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    lens = torch.eye(4)
    lens[:3, :3] = torch.tensor([[10.0, 0, 12], [0, 10, 8], [0, 0, 1]])
    behind = ahead * torch.tensor([-1, -1, 1, 1.0])
    ego2img = torch.stack([lens @ ahead, lens @ behind, lens @ ahead])[None]
    points = torch.tensor([[10.0, 0, 0], [-10, 0, 0], [0.1, 40, 0]]).view(1, 1, 3, 3)
    seen = look_up(flat, points, ego2img, (16, 24))
    assert seen[0, 0, 0, 0].tolist() == pytest.approx([2.0, 2.0, 0.0])  # (1 + 3) / 2, 2, nobody


def test_views_of_a_batch_are_those_of_its_samples():
    torch.manual_seed(0)
    view = IPMView(
        {"range": (-30, -15, -1, 30, 15, 1), "shape": (8, 16)},
        heights=(-1.0, 1.0),
        in_channels=8,
        num_levels=2,
        trunk_channels=4,
        out_channels=6,
    ).eval()
    features = [torch.randn(3, 2, 8, 8, 12), torch.randn(3, 2, 8, 4, 6)]
    ego2img = torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        together = view(features, ego2img, (32, 48))
        alone = [
            view([level[i][None] for level in features], ego2img[i][None], (32, 48))
            for i in range(3)
        ]
    assert together.shape == (3, 6, 2, 4)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_planes_lie_within_the_range():
    grid = {"range": (-30, -15, -1, 30, 15, 1), "shape": (8, 16)}
    for heights in ((), (0.0, 2.0)):
        with pytest.raises(ValueError, match="heights of -1.0 to 1.0 m"):
            IPMView(grid, heights=heights)


def test_a_view_by_planes_takes_no_history():
    view = IPMView({"range": (-30, -15, -1, 30, 15, 1), "shape": (8, 16)}, heights=(0.0,))
    with pytest.raises(ValueError, match="expected no history"):
        view([], torch.eye(4), (32, 48), can_bus=torch.zeros(1, 18))


def test_each_axis_has_tokens_of_its_own_cells():
    head = make_head(canvas={"cells": (6, 9)}).eval()  # higher than wide
    tokens = torch.ones(1, 4, dtype=torch.long)
    logits = head.generator(
        torch.randn(1, 8, 4, 6), [1], tokens[0, :1], torch.ones_like(tokens), tokens
    )
    possible = logits[0] > -1e8
    assert possible[0::2].all(dim=0).tolist() == [True] * 7 + [False] * 3
    assert possible[1::2].all(dim=0).tolist() == [False] + [True] * 9


@torch.no_grad()
def test_levels_are_summed_and_planes_of_a_channel_lie_beside_each_other():
    grid = {"range": (-30, -15, -1, 30, 15, 1), "shape": (4, 6)}
    view = IPMView(grid, heights=(-1.0, 1.0), in_channels=4, num_levels=2)
    view.upsample[1], view.to_bev, view.trunk = (
        torch.nn.Upsample(scale_factor=2),
        *[torch.nn.Identity() for _ in range(2)],
    )
    fine, coarse = torch.randn(1, 3, 4, 8, 12), torch.randn(1, 3, 4, 4, 6)
    ego2img = torch.randn(1, 3, 4, 4)
    found = view([fine, coarse], ego2img, (32, 48))[0]
    both = fine + coarse.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    seen = look_up(both, view.points, ego2img, (32, 48))[0]
    assert seen.abs().sum() > 0
    for channel in range(7):
        for plane in range(2):
            expected = seen[channel, plane] if channel < 4 else view.points[plane, ..., channel - 4]
            torch.testing.assert_close(found[2 * channel + plane], expected)


@torch.no_grad()
def test_the_order_of_cameras_does_not_matter_to_a_view_by_planes():
    torch.manual_seed(0)
    grid = {"range": (-30, -15, -1, 30, 15, 1), "shape": (8, 16)}
    view = IPMView(grid, heights=(0.0,), in_channels=8, num_levels=1).eval()
    features, ego2img = torch.randn(1, 3, 8, 8, 12), torch.randn(1, 3, 4, 4)
    turned = view([features[:, [2, 0, 1]]], ego2img[:, [2, 0, 1]], (32, 48))
    torch.testing.assert_close(turned, view([features], ego2img, (32, 48)), atol=1e-5, rtol=0)


def test_boxes_that_are_found_are_cut_to_the_cells_that_targets_have(monkeypatch):
    head = make_head().eval()
    line = np.array([[-12.3, 4.5], [17.7, 9.1]])
    (target,) = encode_elements([line], [1], head.canvas)
    boxes = torch.from_numpy(target.box).float().expand(1, 1, 5, 4)
    monkeypatch.setattr(head.detector, "forward", lambda bev: (torch.zeros(1, 1, 5, 3), boxes))
    written = []
    monkeypatch.setattr(
        head.generator,
        "generate",
        lambda bev, counts, labels, cells, **_: written.append(cells) or cells.repeat(1, 2),
    )
    head(torch.zeros(1, 8, 4, 6))
    assert written[0].tolist() == [target.box_tokens.tolist()] * 4


@pytest.mark.parametrize(
    "shapes", [[(1, 3, 8)], [(1, 3, 8)] * 3, [(1, 2, 8)] * 2, [(1, 3, 4)] * 2, [(2, 3, 8)] * 2]
)
def test_other_levels_than_those_of_the_view_are_refused(shapes):
    grid = {"range": (-30, -15, -1, 30, 15, 1), "shape": (8, 16)}
    view = IPMView(grid, heights=(0.0,), in_channels=8, num_levels=2, trunk_channels=4)
    features = [torch.zeros(*shape, 4, 4) for shape in shapes]
    with pytest.raises(ValueError, match=r"IPMView: expected 2 levels of .* = \(1, 3, 8\), got"):
        view(features, torch.eye(4).expand(1, 3, 4, 4), (16, 16))


def test_diverged_boxes_end_in_a_loss_that_is_no_number():
    losses = make_head().loss(
        torch.full((1, 8, 4, 8), torch.nan), None, [make_sample((0, [[0, 0], [5, 5]]))]
    )
    assert losses["loss_cls"].isnan()
