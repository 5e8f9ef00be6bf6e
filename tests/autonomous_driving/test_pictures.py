"""Pictures of driving: things stand where they are, in their colours, in cameras and maps."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from internimage.integrations.openmmlab.driving.pictures.board import WIDTH as PAGE
from internimage.integrations.openmmlab.driving.pictures.board import draw_board
from internimage.integrations.openmmlab.driving.pictures.cameras import arrange, draw_cameras
from internimage.integrations.openmmlab.driving.pictures.colours import (
    ATTRIBUTE_COLOURS,
    EGO,
    LANE,
    MAP_COLOURS,
    OCCUPANCY_COLOURS,
    UNSEEN,
)
from internimage.integrations.openmmlab.driving.pictures.content import draw_sample
from internimage.integrations.openmmlab.driving.pictures.drawing import (
    NEAR,
    Drawing,
    Line,
    cut_near,
    seen_from_above,
    voxel_faces,
)
from internimage.integrations.openmmlab.driving.pictures.hook import DrivingPicturesHook
from internimage.integrations.openmmlab.driving.pictures.maps import draw_map
from internimage.integrations.openmmlab.driving.pictures.writer import BoardWriter, write_animation
from tests.autonomous_driving.frames_to_draw import (
    ARGOVERSE,
    EXTENT,
    HEIGHT,
    LONG,
    NUSCENES,
    WIDTH,
    frame,
    lanes,
    matrix_of,
    polylines,
    street,
)

CAR, FREE = 4, 17
COLOURS = np.array(OCCUPANCY_COLOURS, np.uint8)
HEADING = 23  # rows above a map


def occupancy_frame(**fields):
    arrays = {name: torch.from_numpy(value) for name, value in fields.items()}
    return frame(NUSCENES, **arrays)


def test_a_line_is_seen_where_a_pinhole_camera_sees_it():
    line = Line(points=np.array([(6.0, -2.0, 0.0), (6.0, 2.0, 0.0)]), colour=LANE)
    images = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    matrices, ones = matrix_of(0)[None], np.ones((1, 2))
    view = draw_cameras(
        images, ["front"], matrices, ones, Drawing(summary="", lines=(line,)), width=WIDTH
    )
    # 4.5 m ahead of the eye and 1.6 m below it, with a focal length of 110 pixels.
    row = round(HEIGHT / 2 + 110 * 1.6 / 4.5)
    ends = [round(WIDTH / 2 + 110 * side * 2.0 / 4.5) for side in (-1, 1)]
    drawn = (np.abs(view.astype(int) - LANE).sum(axis=2) < 30).nonzero()
    assert set(drawn[0]) <= {row - 2, row - 1, row, row + 1}
    assert abs(drawn[1].min() - ends[0]) <= 2
    assert abs(drawn[1].max() - ends[1]) <= 2


def test_what_is_behind_a_camera_is_cut_off_where_it_begins():
    behind, ahead = np.array([0.0, 0.0, -1.0]), np.array([4.0, 2.0, 3.0])
    (piece,) = cut_near(np.stack([behind, ahead]), closed=False)
    share = (NEAR + 1) / 4
    np.testing.assert_allclose(piece, [share * ahead[:2] / NEAR, ahead[:2] / 3])
    assert cut_near(np.stack([behind, behind - 1]), closed=False) == []
    two = cut_near(np.stack([ahead, behind, ahead + 1]), closed=False)
    assert [len(part) for part in two] == [2, 2]
    square = np.array([(0, 0, 1), (1, 0, 1), (1, 1, -1), (0, 1, -1)], float)
    (outline,) = cut_near(square, closed=True)
    share = (1 - NEAR) / 2
    np.testing.assert_allclose(
        outline, [(0, 0), (1, 0), (1 / NEAR, share / NEAR), (0, share / NEAR)]
    )


def test_views_stand_as_the_cameras_do_and_fill_the_page():
    cells = {
        list(ARGOVERSE)[c.camera]: c for c in arrange(list(ARGOVERSE), [0.75] + [4 / 3] * 6, 1000)
    }
    front, left, right = (cells[f"ring_front_{side}"] for side in ("center", "left", "right"))
    assert left.left == 0
    assert left.left + left.width < front.left < front.left + front.width < right.left
    assert abs(right.left + right.width - 1000) <= 2
    assert cells["ring_front_left"].top < cells["ring_side_left"].top < cells["ring_rear_left"].top
    assert abs(cells["ring_rear_left"].top + left.height - front.height) <= 4
    for cell, aspect in ((front, 0.75), (left, 4 / 3)):
        assert abs(cell.width / cell.height - aspect) < 0.01
    without_names = arrange(["a", "b", "c"], [1.0] * 3, 300)
    assert sorted({cell.left for cell in without_names}) == [0, 102, 204]


def test_a_stretched_image_gets_its_proportions_back():
    images = np.full((1, 50, 100, 3), 7, np.uint8)
    args = (["front"], matrix_of(0)[None], np.array([[2.0, 1.0]]), Drawing(summary=""))
    assert draw_cameras(images, *args, width=80).shape == (80, 80, 3)


def test_only_sides_next_to_free_space_are_faces():
    voxels = np.full((4, 3, 2), FREE)
    voxels[1, 1, 0] = CAR
    origin, cell = np.array([10.0, 20.0, 30.0]), np.array([1.0, 2.0, 3.0])
    faces = voxel_faces(voxels, COLOURS, FREE, origin, cell)
    assert len(faces.corners) == 6
    centre = origin + (np.array([1, 1, 0]) + 0.5) * cell
    np.testing.assert_allclose(faces.corners.mean(axis=1), centre + faces.normals * cell / 2)
    voxels[2, 1, 0] = CAR
    assert len(voxel_faces(voxels, COLOURS, FREE, origin, cell).corners) == 10


def test_a_voxel_covers_the_pixels_that_its_front_covers():
    voxels = np.full((3, 3, 3), FREE)
    voxels[1, 1, 1] = CAR
    # From 6 to 8 m ahead, and as high as the eye: of its sides only the front is seen.
    faces = voxel_faces(voxels, COLOURS, FREE, np.array([4, -3, -1.4]), np.full(3, 2.0))
    images = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    matrices, drawing = matrix_of(0)[None], Drawing(summary="", faces=faces)
    view = draw_cameras(images, ["-"], matrices, np.ones((1, 2)), drawing, width=WIDTH)
    drawn = view[30:].any(axis=2)  # the camera's name is above
    half = 110 * 1 / 4.5  # pixels
    low_x, high_x = WIDTH / 2 - half, WIDTH / 2 + half
    low_y, high_y = HEIGHT / 2 - half - 30, HEIGHT / 2 + half - 30
    rows, columns = np.indices(drawn.shape)
    inside = (columns >= low_x) & (columns + 1 <= high_x) & (rows >= low_y) & (rows + 1 <= high_y)
    near = (columns > low_x - 3) & (columns < high_x + 2) & (rows > low_y - 3) & (rows < high_y + 2)
    assert inside.sum() > 1500
    assert drawn[inside].all()
    assert not drawn[~near].any()  # a soft edge is two pixels wide


def test_the_nearer_voxel_hides_the_farther_one():
    voxels = np.full((100, 100, 16), FREE, np.uint8)
    voxels[70:72, 46:54, 3:8], voxels[90:92, 40:60, 3:9] = CAR, 16
    inputs, sample = occupancy_frame(pred_semantics=voxels)
    content = draw_sample(sample, EXTENT, score_threshold=0.3)
    images = np.zeros((6, HEIGHT, WIDTH, 3), np.uint8)
    matrices = sample.ego2img[-1]
    view = draw_cameras(
        images[:1], ["front"], matrices[:1], np.ones((1, 2)), content.prediction, width=WIDTH
    )
    red, green, blue = view[HEIGHT // 2, WIDTH // 2].astype(int)
    assert blue > green > red > 0  # the car's blue, not the tree's green
    away = draw_cameras(
        images[:1], ["back"], matrices[3:4], np.ones((1, 2)), content.prediction, width=WIDTH
    )
    assert away[20:].sum(axis=0).max() == 0 or not away[HEIGHT // 2].any()


@pytest.mark.parametrize(
    ("region", "pixel"),
    [((-20, -20, 20, 20), (300, 500)), ((-20, -10, 20, 10), (100, 500))],
    ids=["the car looks up", "the car looks to the right"],
)
def test_a_thing_ahead_on_the_right_is_there_on_the_map(region, pixel):
    points = np.array([(3.0, -5.0), (7.0, -5.0)])
    drawing = Drawing(summary="", lines=(Line(points=points, colour=LANE),))
    picture = draw_map(drawing, region, "Truth", width=800)[HEADING:]
    x0, y0, x1, y1 = region
    if x1 - x0 > y1 - y0:
        row, column = round((10 + 5) * 20), round((20 + 5) * 20)
    else:
        row, column = round((20 - 5) * 20), round((20 + 5) * 20)
    assert tuple(picture[row, column]) == LANE
    assert (picture == LANE).all(axis=2).sum() < 400


def test_voxels_from_above_show_the_highest_one_where_it_is():
    voxels = np.full((4, 2, 3), FREE)
    voxels[:, :, 0] = 11
    voxels[3, 0, 2] = CAR
    ground = seen_from_above(voxels, COLOURS, FREE)
    assert tuple(ground[0, 0]) == OCCUPANCY_COLOURS[11]
    np.testing.assert_array_equal(ground[3, 0], np.round(COLOURS[CAR] * 0.75))
    voxels[1, 1] = FREE
    assert tuple(seen_from_above(voxels, COLOURS, FREE)[1, 1]) == OCCUPANCY_COLOURS[FREE]
    picture = draw_map(Drawing(summary="", ground=ground), (0, 0, 4, 2), "Truth", width=400)
    # x = 3.5, y = 0.5: in the lower right corner when the car looks to the right.
    np.testing.assert_array_equal(picture[HEADING + 130, 350], ground[3, 0])
    square = draw_map(Drawing(summary="", ground=ground), (10, 10, 12, 12), "Truth", width=400)
    np.testing.assert_array_equal(square[HEADING + 40, 350], ground[3, 0])


def test_columns_that_no_camera_sees_are_grey_on_both_maps():
    mask = np.ones((100, 100, 16), bool)
    mask[:10] = False
    inputs, sample = occupancy_frame(
        gt_semantics=street(), pred_semantics=street(), mask_camera=mask
    )
    content = draw_sample(sample, EXTENT, score_threshold=0.3)
    for side in (content.truth, content.prediction):
        assert (side.ground[:10] == UNSEEN).all()
        assert not (side.ground[10:] == UNSEEN).all(axis=2).any()
    names = [name for name, _, _ in content.keys]
    assert names[:2] == ["car", "pedestrian"]
    assert names[-1] == "not seen by a camera"


def test_lanes_elements_and_relations_below_their_scores_are_left_out():
    found = lanes() | {"scores": np.array([0.9, 0.2, 0.8]), "box_scores": np.array([0.1, 0.7])}
    found["topology_lclc"] = np.array([(0, 0.9, 0.4), (0, 0, 0), (0.6, 0, 0.9)])
    inputs, sample = frame(ARGOVERSE, pred_lanes=found)
    content = draw_sample(sample, LONG, score_threshold=0.5)
    drawing = content.prediction
    assert content.truth is None
    assert drawing.summary == "2 lanes, 1 connection, 1 element"
    # Of lane 2 to lane 0, from near the end of the one to near the start of the other.
    (pair,) = drawing.connections
    np.testing.assert_array_equal(pair, [found["lanes"][2][8, :2], found["lanes"][0][2, :2]])
    (box,) = drawing.boxes
    assert (box.camera, box.text) == (0, "A turn left")
    np.testing.assert_allclose(
        box.corners, np.array((50, 18, 58, 26)) * np.tile([WIDTH / 72, 1], 2)
    )
    assert [line.badges[0][0] if line.badges else "" for line in drawing.lines] == ["", "A"]


def test_map_lines_have_the_colours_of_their_classes_and_lie_on_the_ground():
    inputs, sample = frame(ARGOVERSE, gt_polylines=polylines())
    drawing = draw_sample(sample, LONG, score_threshold=0.3).truth
    assert [line.colour for line in drawing.lines] == [MAP_COLOURS[i] for i in (0, 1, 2, 2)]
    assert drawing.summary == "1 pedestrian crossing, 1 divider, 2 boundaries"
    assert all((line.points[:, 2] == 0).all() for line in drawing.lines)


def test_a_page_shows_the_prediction_and_stands_without_it_and_without_the_truth():
    truth, wrong = street(), street()
    wrong[70:81, 42:47, 3:7] = FREE
    both = draw_board(*occupancy_frame(gt_semantics=truth, pred_semantics=wrong), EXTENT)
    right = draw_board(*occupancy_frame(gt_semantics=truth, pred_semantics=truth), EXTENT)
    cameras, maps = np.s_[60:560], np.s_[600:1200]
    assert (both[cameras] != right[cameras]).any()
    middle = right.shape[1] // 2
    np.testing.assert_array_equal(both[maps][:, :middle], right[maps][:, :middle])
    assert (both[maps][:, middle:] != right[maps][:, middle:]).any()
    alone = draw_board(*occupancy_frame(gt_semantics=truth), EXTENT)
    np.testing.assert_array_equal(alone[cameras][40:], right[cameras][40:])
    assert right.shape == both.shape == alone.shape
    assert right.shape[1] == PAGE + 28
    inputs, sample = occupancy_frame(mask_camera=np.ones((2, 2, 2), bool))
    with pytest.raises(ValueError, match="draw_sample: .* got neither"):
        draw_board(inputs, sample, EXTENT)


def test_a_frame_in_which_nothing_is_seen_is_drawn():
    inputs, sample = occupancy_frame(gt_semantics=street())
    sample.mask_camera = np.zeros(street().shape, bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_sample(sample, EXTENT, score_threshold=0.3).truth.summary == "no voxel is seen"
        draw_board(inputs, sample, EXTENT)


def test_colours_that_mean_something_stay_in_a_gif(tmp_path: Path):
    ramp = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for index, colour in enumerate((EGO, *MAP_COLOURS, *ATTRIBUTE_COLOURS)):
        ramp[15 * index : 15 * index + 15, :15] = colour
    Image.fromarray(ramp).save(tmp_path / "page.png")
    write_animation(tmp_path / "a.gif", [tmp_path / "page.png"])
    with Image.open(tmp_path / "a.gif") as animation:
        shown = np.asarray(animation.convert("RGB"))
    for index, colour in enumerate((EGO, *MAP_COLOURS, *ATTRIBUTE_COLOURS)):
        np.testing.assert_array_equal(shown[10 * index + 5, 5], colour)


def test_the_hook_draws_the_first_frames_of_an_evaluation_and_animates_them(tmp_path: Path):
    view = SimpleNamespace(grid=SimpleNamespace(range=LONG))
    runner = SimpleNamespace(rank=0, work_dir=str(tmp_path), model=SimpleNamespace(view=view))
    hook = DrivingPicturesHook(num_frames=3, animation="gif")
    outputs, inputs = [], []
    for index in range(4):
        found = polylines() | {"scores": np.ones(4)}
        found["polylines"] = [line + index for line in found["polylines"]]
        images, sample = frame(ARGOVERSE, gt_polylines=polylines(), pred_polylines=found)
        sample.set_metainfo({"token": f"2024/{index}", "timestamp": -index})
        inputs.append(images[None])
        outputs.append(sample)
    for _ in range(2):  # a second evaluation replaces the pictures of the first
        hook.before_val_epoch(runner)
        hook.after_val_iter(runner, 0, {"inputs": inputs[:2]}, outputs[:2])
        hook.after_val_iter(runner, 1, {"inputs": inputs[2:]}, outputs[2:])
        hook.after_val_epoch(runner)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names[0] == "scene-0001.gif"
    # What follows the token tells "2024/0" from "2024-0".
    assert [name[:17] for name in names[1:]] == [f"scene-0001_2024-{n}" for n in range(3)]
    with Image.open(tmp_path / "pictures" / "scene-0001.gif") as animation:
        assert (animation.n_frames, animation.info["duration"]) == (3, 500)


@pytest.mark.parametrize(("num_frames", "count"), [(4, 0), (None, 2)])
def test_another_rank_draws_where_all_frames_are_asked_for(num_frames, count, tmp_path: Path):
    view = SimpleNamespace(grid=SimpleNamespace(range=LONG))
    runner = SimpleNamespace(rank=1, work_dir="-", model=SimpleNamespace(view=view))
    hook = DrivingPicturesHook(num_frames=num_frames, out_dir=str(tmp_path / "drawn"))
    images, first = frame(ARGOVERSE, pred_polylines=polylines() | {"scores": np.ones(4)})
    second = first.clone()
    second.set_metainfo({"token": "second"})
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, {"inputs": [images[None]] * 2}, [first, second])
    hook.after_test_epoch(runner)
    assert len(list(tmp_path.glob("drawn/*.png"))) == count


@pytest.mark.parametrize("scores", [None, np.ones(3)])
def test_predictions_without_a_score_for_each_are_refused(scores):
    found = polylines() | ({} if scores is None else {"scores": scores})
    inputs, sample = frame(ARGOVERSE, gt_polylines=polylines(), pred_polylines=found)
    with pytest.raises(ValueError, match="expected scores for all 4 predicted polylines, got [03]"):
        draw_board(inputs, sample, LONG)


def test_tokens_that_differ_in_signs_alone_have_pages_of_their_own(tmp_path: Path):
    writer = BoardWriter(tmp_path / "drawn", LONG)
    images, sample = frame(ARGOVERSE, gt_polylines=polylines())
    for token in ("a-b", "a/b", "../a b"):
        sample.set_metainfo({"token": token})
        writer.add(images, sample)
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3
    assert (tmp_path / "drawn" / "scene-0001_a-b.png").is_file()


def test_an_animation_in_all_colours_holds_the_very_pages(tmp_path: Path):
    writer = BoardWriter(tmp_path, LONG)
    pages = []
    for index in range(2):
        found = polylines()
        found["polylines"] = [line + index for line in found["polylines"]]
        images, sample = frame(ARGOVERSE, gt_polylines=found)
        sample.set_metainfo({"token": str(index), "timestamp": index})
        with Image.open(writer.add(images, sample)) as page:
            pages.append(np.asarray(page.convert("RGB")))
    (path,) = writer.animate("png")
    assert path.name == "scene-0001.animated.png"
    with Image.open(path) as animation:
        assert animation.n_frames == 2
        for index, page in enumerate(pages):
            animation.seek(index)
            np.testing.assert_array_equal(np.asarray(animation.convert("RGB")), page)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_frames": 0}, "num_frames >= 1, got 0"),
        ({"score_threshold": 1.5}, "0 <= score_threshold <= 1, got 1.5"),
        ({"animation": "mp4"}, "animation 'gif', 'png' or None, got 'mp4'"),
    ],
)
def test_a_setting_of_the_hook_that_makes_no_sense_is_refused(setting, message):
    with pytest.raises(ValueError, match=f"DrivingPicturesHook: expected {message}"):
        DrivingPicturesHook(**setting)
