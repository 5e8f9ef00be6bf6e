"""What counts as the same answer: numbers by their size, detections in pairs."""

from __future__ import annotations

import numpy as np
import pytest

from comparison import Comparison

Arrays = dict[str, np.ndarray]


def detections(*rows: tuple[float, float, float, float, float, int], slots: int = 12) -> Arrays:
    """One image's boxes, scores and classes, padded."""
    dets, labels = np.zeros((1, slots, 5), np.float32), np.full((1, slots), -1)
    for index, row in enumerate(rows):
        dets[0, index], labels[0, index] = row[:5], row[5]
    return {"dets": dets, "labels": labels}


def compare(actual: Arrays, expected: Arrays, tolerance: float = 0.01) -> Comparison:
    comparison = Comparison(tolerance)
    comparison.add(actual, expected, longest_side=100)
    return comparison


ROWS = [(k, k, k + 10.0, k + 10.0, 0.9 - 0.01 * k, k % 3) for k in range(10)]


def test_numbers_are_compared_over_the_largest_of_their_output():
    expected = {"a": np.array([1.0, -4.0]), "b": np.zeros(2)}
    found = compare({"a": np.array([1.5, -4.0]), "b": np.zeros(2)}, expected, tolerance=0.2)
    assert found.lines == ["a: 1.25e-01", "b: 0.00e+00"]
    found.check()
    found.tolerance = 0.1
    with pytest.raises(ValueError, match="expected a difference of a <= 0.1, got 1.25e-01"):
        found.check()


def test_the_worst_of_several_runs_counts():
    comparison = Comparison(0.1)
    for value in (1.05, 1.2, 1.0):
        comparison.add({"a": np.array([value])}, {"a": np.array([1.0])}, longest_side=1)
    assert comparison.largest["a"] == pytest.approx(0.2)


def test_what_is_no_number_is_a_difference():
    with pytest.raises(ValueError, match="got nan"):
        compare({"a": np.array([np.nan])}, {"a": np.array([1.0])}).check()


def test_other_outputs_or_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected the output b \(2,\), got a"):
        compare({"a": np.zeros(2)}, {"b": np.zeros(2)})
    with pytest.raises(ValueError, match=r"expected the output a \(2,\), got \(3,\)"):
        compare({"a": np.zeros(3)}, {"a": np.zeros(2)})


def test_detections_in_another_order_are_the_same():
    found = compare(detections(*reversed(ROWS)), detections(*ROWS))
    assert found.lines == ["boxes: 0.00e+00", "scores: 0.00e+00", "detections: 10 of 10 the same"]
    found.check()


def test_differences_of_pairs_are_those_of_their_boxes_and_scores():
    moved = [(*(side + 0.5 for side in row[:4]), row[4] - 0.003, row[5]) for row in ROWS]
    found = compare(detections(*moved), detections(*ROWS))
    assert found.largest["boxes"] == pytest.approx(0.005)
    assert found.largest["scores"] == pytest.approx(0.003, rel=1e-3)
    found.check()


def with_masks(found: Arrays, values: list[float]) -> Arrays:
    """Give each detection a mask of one value."""
    masks = np.zeros((1, found["labels"].shape[1], 4, 4), np.float32)
    masks[0, : len(values)] = np.array(values, np.float32)[:, None, None]
    return {**found, "masks": masks}


def test_equal_boxes_with_other_masks_are_other_detections():
    ones, zeros = (with_masks(detections(*ROWS), [value] * 10) for value in (1.0, 0.0))
    found = compare(zeros, ones)
    assert found.lines == ["detections: 0 of 10 the same"]
    with pytest.raises(ValueError, match="expected 90% of the detections to be the same, got 0 of"):
        found.check()
    same = compare(ones, ones)
    assert "masks: 0.00e+00" in same.lines
    same.check()


def test_the_difference_of_masks_is_the_mean_of_their_pixels():
    expected = with_masks(detections(ROWS[0]), [1.0])
    actual = with_masks(detections(ROWS[0]), [1.0])
    actual["masks"][0, 0, 0, 0] = 0.92  # one pixel of 16
    assert compare(actual, expected).largest["masks"] == pytest.approx(0.005)
    actual["masks"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="expected a difference of masks <= 0.01, got nan"):
        compare(actual, expected).check()


def test_equal_boxes_are_paired_by_their_masks():
    twins = detections(ROWS[0], ROWS[0])
    found = compare(with_masks(twins, [0.2, 0.9]), with_masks(twins, [0.9, 0.2]))
    assert found.lines[-1] == "detections: 2 of 2 the same"


def test_boxes_are_measured_by_the_input_of_their_run():
    """Not by that of another: images are of many sizes."""
    moved = detections((0, 0, 10.0, 12.0, 0.9, 0))
    comparison = Comparison(0.1)
    comparison.add(moved, detections((0, 0, 10.0, 10.0, 0.9, 0)), longest_side=50)
    assert comparison.largest["boxes"] == pytest.approx(0.04)
    comparison.add(moved, detections((0, 0, 10.0, 10.0, 0.9, 0)), longest_side=25)
    assert comparison.largest["boxes"] == pytest.approx(0.08)


def test_one_detection_in_ten_may_be_another_and_no_more():
    compare(detections(*ROWS[:9]), detections(*ROWS)).check()
    compare(detections(*ROWS), detections(*ROWS[:9])).check()
    other_class = [(*row[:5], 7) for row in ROWS[:2]]
    for actual, expected in (
        (ROWS[:8], ROWS),
        (ROWS, ROWS[:8]),
        ([*other_class, *ROWS[2:]], ROWS),
        ([(50.0, 50.0, 90.0, 90.0, 0.9, 0)] * 2 + ROWS[2:], ROWS),
        ([], ROWS),
    ):
        with pytest.raises(ValueError, match="expected 90% of the detections to be the same"):
            compare(detections(*actual), detections(*expected)).check()


def test_where_nothing_is_detected_nothing_is_proven():
    with pytest.raises(ValueError, match="expected something to compare, got no detection"):
        compare(detections(), detections()).check()
