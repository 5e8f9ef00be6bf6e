"""What the readers say of cameras, poses and truth agrees with what the drawn images show.

The oracle is the world itself: whether a camera sees a point is found by walking to it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internimage.integrations.openmmlab.driving import BEVDataPreprocessor
from internimage.integrations.openmmlab.driving.geometry import BEVGrid, project, warp_bev
from internimage.integrations.openmmlab.driving.history import motion_between
from tests.autonomous_driving.drives import CITY_FRAMES, PARTS, RING_SIZE, city, read
from tools.driving_scenes.cameras import FACES, SKY, take
from tools.driving_scenes.classes import COLOURS, DRIVEABLE, FREE, PAVEMENT, TERRAIN
from tools.driving_scenes.rigs import city_rig
from tools.driving_scenes.road import MIDDLE, WHITE, YELLOW
from tools.driving_scenes.voxels import SMALL
from tools.driving_scenes.world import SIGNAL_COLOURS

SKY_CLASS = -1
STEP = 0.1  # metres between the points of a walk
GROUND = (DRIVEABLE, PAVEMENT, TERRAIN)
PALETTE = [
    (SKY_CLASS, SKY),
    *((label, COLOURS[label]) for label in GROUND),
    *(
        (label, np.multiply(COLOURS[label], shade))
        for label in range(FREE)
        if label not in GROUND
        for shade in FACES
    ),
]


def classes_of(image):
    """Returns the class of each pixel (H, W) of an image (3, H, W), BGR, by its colour."""
    pixels = image.numpy()[::-1].transpose(1, 2, 0).astype(float)
    colours = np.array([colour for _, colour in PALETTE], dtype=float)
    nearest = np.linalg.norm(pixels[:, :, None] - colours, axis=-1).argmin(-1)
    return np.array([label for label, _ in PALETTE])[nearest]


def walk(boxes, start, end):
    """Returns the box that comes first on the way between two points (3,), or None."""
    distance = np.linalg.norm(end - start)
    way = start + np.linspace(0, 1, int(distance / STEP) + 2)[:, None] * (end - start)
    first = None
    for box in boxes:
        (inside,) = np.nonzero(box.holds(way))
        if len(inside) and (first is None or inside[0] < first[0]):
            first = inside[0], box
    return first[1] if first else None


def camera_centre(matrix):
    return -np.linalg.inv(matrix[:3, :3]) @ matrix[:3, 3]


@pytest.mark.parametrize(("drive", "size"), [(0, None), (1, (90, 150))], ids=["raw", "resized"])
def test_a_coloured_voxel_projects_onto_its_colour_in_every_camera_that_sees_it(
    driving_scenes, drive, size
):
    frame = 3
    pipeline = [*PARTS["nuscenes"][2]]
    if size is not None:
        pipeline.insert(1, {"type": "ResizeDrivingImages", "size": size})
    item = read(driving_scenes, "nuscenes", pipeline=pipeline)[drive * CITY_FRAMES + frame]
    # Without a normalisation the network's input is the image and its padding: 90x150 to 96x160.
    preprocessor = BEVDataPreprocessor(mean=[0] * 3, std=[1] * 3, bgr_to_rgb=False)
    batch = preprocessor({"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]})
    (sample,), images = batch["data_samples"], batch["inputs"][0, -1]
    assert images.shape[-2:] == sample.image_shape == (96, 160)
    scene = city(drive)
    to_plane = np.linalg.inv(scene.base) @ sample.ego2global[-1]
    semantics = sample.gt_semantics.numpy()
    voxels = np.argwhere(semantics != FREE)
    centres = SMALL.centres()[tuple(voxels.T)]
    labels = semantics[tuple(voxels.T)]
    centres[:, 2] = centres[:, 2].clip(min=0)  # the ground is painted on its voxels' tops
    points = centres @ to_plane[:3, :3].T + to_plane[:3, 3]
    matrices = torch.from_numpy(sample.ego2img[-1])[None]
    uv, visible = project(torch.from_numpy(centres), matrices, images.shape[-2:])
    boxes = scene.boxes(frame)

    seen = right = 0
    seen_labels, missed = set(), []
    for camera, image in enumerate(images):
        pixels = classes_of(image)
        width_height = np.array(pixels.shape[::-1])
        centre = camera_centre(sample.ego2img[-1, camera])
        centre = to_plane[:3, :3] @ centre + to_plane[:3, 3]
        for index in np.flatnonzero(visible[0, camera]):
            hit = walk(boxes, centre, points[index])
            if (hit.thing.label if hit else None) != (
                labels[index] if voxels[index, 2] > SMALL.ground else None
            ):
                continue  # something else is in front
            column, row = (uv[0, camera, index].numpy() * width_height).astype(int)
            if row >= sample.unpadded_shape[0] or column >= sample.unpadded_shape[1]:
                continue
            around = pixels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            if labels[index] not in around:
                missed.append((sample.cameras[camera], voxels[index]))
            seen += 1
            right += pixels[row, column] == labels[index]
            seen_labels.add(int(labels[index]))
    # The ray of a pixel goes through its middle, so at edges it may meet the neighbour.
    assert right >= 0.95 * seen and not missed, missed
    assert seen > 150 and len(seen_labels) >= 6


def test_each_voxel_that_counts_as_seen_is_in_the_view_of_a_camera(driving_scenes):
    for item in read(driving_scenes, "nuscenes"):
        sample = item["data_samples"]
        mask = sample.mask_camera.numpy()
        points = torch.from_numpy(SMALL.centres()[mask])
        points[:, 2] = points[:, 2].clip(min=0)  # of the ground its surface is seen
        matrices = torch.from_numpy(sample.ego2img[-1])[None]
        _, visible = project(points, matrices, item["inputs"].shape[-2:])
        assert visible.any(1).all()
        assert 0.2 < mask.mean() < 0.7


def test_the_car_behind_the_wall_is_seen_before_it_is_hidden():
    scene = city(0)
    pixels = []
    for frame in (0, 2, 3):
        boxes = scene.boxes(frame)
        (index,) = (i for i, box in enumerate(boxes) if box.thing.name == "hidden")
        shots = [take(scene, frame, camera, paint=False) for camera in city_rig()]
        pixels.append(sum(int((shot.owner == index).sum()) for shot in shots))
        where = np.linalg.inv(scene.ego_pose(scene.time(frame))) @ [*boxes[index].centre, 1]
        assert np.abs(where[:2]).max() < 20
    assert pixels[0] > 50 and min(pixels) == 0


def field(ego2global, grid):
    """Returns a smooth picture (1, 2, H, W) of the world as the ego sees it from above."""
    centres = grid.to_metres(grid.centres()).double().numpy()
    x, y = np.moveaxis(centres @ ego2global[:2, :2].T + ego2global[:2, 3], -1, 0)
    waves = np.stack([np.sin(0.5 * x + 0.2 * y), np.cos(0.4 * y - 0.3 * x)])
    return torch.from_numpy(waves[None].astype(np.float32))


def ground(scene, ego2global, grid):
    """Returns the classes of the ground (1, 18, H, W), one-hot, as the ego sees it from above."""
    centres = grid.to_metres(grid.centres()).double().numpy()
    pose = np.linalg.inv(scene.base) @ ego2global
    labels = scene.road.ground_class(centres @ pose[:2, :2].T + pose[:2, 3])
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), 18)
    return one_hot.permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("drive", [0, 1], ids=["to the left", "to the right"])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_warped_view_equals_its_rendering_anew(driving_scenes, drive, frames):
    # As far as the junction: the road before it is an arc, which the drive does not change.
    grid = BEVGrid(range=(0.0, -12.0, -1.0, 32.0, 12.0, 5.0), shape=(120, 160))
    dataset = read(driving_scenes, "nuscenes", pipeline=[])
    before, now = (
        dataset.get_data_info(drive * CITY_FRAMES + frame)["ego2global"]
        for frame in (1, 1 + frames)
    )
    motion = torch.from_numpy(motion_between(before, now))[None]

    old, new = field(before, grid), field(now, grid)
    warped, inside = warp_bev(old, motion, grid)
    # Along the rim of the old view, half a cell, there is nothing beyond to mix with.
    unknown = torch.nn.functional.pad((~inside).float(), (1, 1, 1, 1), value=1)
    rim = torch.nn.functional.max_pool2d(unknown, 3, stride=1) > 0
    inner = ~rim[:, None].expand_as(new)
    assert inside.float().mean() > 0.6
    assert (warped - new)[inner].abs().max() < 0.02
    assert (old - new)[inner].abs().max() > 0.5

    scene = city(drive)
    old, new = ground(scene, before, grid), ground(scene, now, grid)
    warped, inside = warp_bev(old, motion, grid)
    # At edges between classes a cell holds shares of both.
    spread = torch.nn.functional.max_pool2d(new, 3, stride=1, padding=1)
    clear = inside & (spread.sum(1) == 1)
    right = warped.argmax(1) == new.argmax(1)
    assert right[clear].all()
    assert clear.float().mean() > 0.5
    assert not (old.argmax(1) == new.argmax(1))[clear].all()


def colour_at(image, uv, allowed, tolerance=45):
    """Returns whether a pixel or a neighbour of it is of one of the colours."""
    column, row = (int(x) for x in uv)
    around = image.numpy()[::-1, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    return any(
        (np.abs(around.reshape(3, -1).T - np.array(colour)).max(1) < tolerance).any()
        for colour in allowed
    )


def seen_colours(item, points, *, nearest, colours):
    """Returns how many points within some metres of the cameras are of the colours, and of all."""
    sample, images = item["data_samples"], item["inputs"][-1]
    matrices = torch.from_numpy(sample.ego2img[-1])[None]
    uv, visible = project(torch.from_numpy(points), matrices, images.shape[-2:])
    near = np.linalg.norm(points[:, :2], axis=1) < nearest
    size = np.array(images.shape[:-3:-1])
    results = [
        colour_at(images[camera], uv[0, camera, index].numpy() * size, colours)
        for camera in range(len(images))
        for index in np.flatnonzero(visible[0, camera].numpy() & near)
    ]
    return sum(results), len(results)


def test_lanes_lie_on_the_paint_of_their_middle(driving_scenes):
    right = count = 0
    for item in read(driving_scenes, "openlane"):
        for lane in item["data_samples"].gt_lanes["lanes"]:
            # The side road and the junction have no such paint.
            if abs(lane[0, 0] - lane[-1, 0]) < 20:
                continue
            line = np.linspace(lane[:-1], lane[1:], 8, axis=1).reshape(-1, 3).astype(float)
            one, all_ = seen_colours(item, line, nearest=12, colours=[MIDDLE])
            right, count = right + one, count + all_
    # Cars stand on some of it.
    assert count > 300 and right > 0.9 * count


def test_traffic_elements_are_squares_of_their_colour_in_the_front_image(driving_scenes):
    count = 0
    for item in read(driving_scenes, "openlane"):
        sample, front = item["data_samples"], item["inputs"][-1][0].numpy()[::-1]
        lanes = sample.gt_lanes
        scale = np.tile(sample.scale_factors[0], 2)
        for box, attribute in zip(lanes["boxes"] * scale, lanes["attributes"], strict=True):
            x0, y0, x1, y1 = box
            assert 0 <= x0 < x1 <= RING_SIZE[1] and 0 <= y0 < y1 <= RING_SIZE[0]
            colour = front[:, int((y0 + y1) / 2), int((x0 + x1) / 2)]
            expected = np.multiply(SIGNAL_COLOURS[attribute], FACES[0])
            assert np.abs(colour - expected).max() < 30, (colour, expected)
            count += 1
    assert count > 20


def test_dividers_of_the_map_lie_on_painted_lines(driving_scenes):
    right = count = 0
    for item in read(driving_scenes, "argoverse2"):
        elements = item["data_samples"].gt_polylines
        for line, label in zip(elements["polylines"], elements["labels"], strict=True):
            if label == 1:
                points = np.concatenate([line, np.zeros((len(line), 1))], 1)
                one, all_ = seen_colours(item, points, nearest=12, colours=[WHITE, YELLOW])
                right, count = right + one, count + all_
    assert count > 300 and right > 0.9 * count
