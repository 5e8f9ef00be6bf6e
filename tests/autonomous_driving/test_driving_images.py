"""Transforms of images with their matrices, and the order of frames among processes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmengine.registry import DATA_SAMPLERS, TRANSFORMS

import internimage.integrations.openmmlab.driving  # noqa: F401  (registers)
from internimage.integrations.openmmlab.driving.data import sampler as sampler_module


def _frame(shapes=((20, 30), (20, 30))):
    rng = np.random.default_rng(0)
    matrices = np.tile(np.eye(4), (len(shapes), 1, 1))
    matrices[:, :2, 2] = [15, 10]  # the principal point
    return {
        **{"token": "a", "scene": "s", "prev": "", "timestamp": 1, "is_history": False},
        "cameras": [f"camera{i}" for i in range(len(shapes))],
        "img_paths": [f"{i}.png" for i in range(len(shapes))],
        "img": [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes],
        "ego2img": matrices,
        "ego2global": np.eye(4),
        "scale_factors": np.ones((len(shapes), 2)),
    }


def test_a_resized_image_shows_a_point_where_its_matrix_puts_it():
    frame = _frame(((40, 60), (60, 40)))
    for image in frame["img"]:
        image[:] = 0
        image[10:20, 20:30] = 255  # a bright square, its centre at pixel edges (25, 15)
    centre = np.array([25.0 - 15, 15.0 - 10, 1, 1])
    resized = TRANSFORMS.build({"type": "ResizeDrivingImages", "size": (30, 120)})(frame)
    assert [image.shape for image in resized["img"]] == [(30, 120, 3)] * 2
    for number, image in enumerate(resized["img"]):
        u, v = (resized["ego2img"][number] @ centre)[:2]
        rows, columns = np.nonzero(image[..., 0] > 127)
        assert abs(columns.mean() + 0.5 - u) < 0.51
        assert abs(rows.mean() + 0.5 - v) < 0.51
    np.testing.assert_allclose(resized["scale_factors"], [[2, 0.75], [3, 0.5]])


def test_an_image_of_the_right_size_is_not_touched():
    frame = _frame()
    before = [image.copy() for image in frame["img"]]
    after = TRANSFORMS.build({"type": "ResizeDrivingImages", "size": (20, 30)})(frame)
    np.testing.assert_array_equal(after["img"], before)
    np.testing.assert_array_equal(after["ego2img"], _frame()["ego2img"])


def test_each_image_is_distorted_by_itself_and_its_size_kept():
    np.random.seed(0)
    frame = _frame()
    frame["img"][1] = frame["img"][0].copy()
    distorted = TRANSFORMS.build({"type": "DrivingPhotometricDistortion"})(frame)["img"]
    assert [(image.shape, image.dtype) for image in distorted] == [((20, 30, 3), np.float32)] * 2
    assert np.abs(distorted[0] - distorted[1]).max() > 1


def test_images_of_unlike_sizes_are_not_packed():
    with pytest.raises(ValueError, match=r"images of one size, got \[\(20, 30\), \(30, 20\)\]"):
        TRANSFORMS.build({"type": "PackDrivingInputs"})(_frame(((20, 30), (30, 20))))


def test_truth_of_every_task_is_packed_and_keys_that_are_asked_for():
    frame = {**_frame(), "gt_grid": np.ones(3), "gt_lanes": {"lanes": []}, "identifier": (1, 2)}
    packed = TRANSFORMS.build({"type": "PackDrivingInputs", "meta_keys": ["identifier"]})(frame)
    sample = packed["data_samples"]
    assert sample.gt_grid.tolist() == [1, 1, 1]
    assert sample.gt_lanes == {"lanes": []}
    assert sample.identifier == (1, 2)
    assert sample.image_shape == (20, 30)
    np.testing.assert_array_equal(
        packed["inputs"].numpy(), np.stack(frame["img"]).transpose(0, 3, 1, 2)
    )


def test_a_tag_that_turns_a_picture_is_ignored(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (30, 20, 3)
    frame = {**_frame(((20, 30),)), "img_paths": [str(tmp_path / "a.jpg")]}
    loaded = TRANSFORMS.build({"type": "LoadDrivingImages"})(frame)
    assert loaded["img"][0].shape == (20, 30, 3)


def test_a_file_that_is_no_image_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    frame = {**_frame(((20, 30),)), "img_paths": [str(tmp_path / "a.jpg")]}
    with pytest.raises(ValueError, match="expected an image of camera0 in frame a, got"):
        TRANSFORMS.build({"type": "LoadDrivingImages"})(frame)


def test_a_size_that_cannot_be_is_an_error():
    with pytest.raises(ValueError, match=r"expected a size \(H, W\) >= 1"):
        TRANSFORMS.build({"type": "ResizeDrivingImages", "size": (0, 20)})


class _Scenes:
    """Frames of scenes of 5, 2, 4 and 1 frames."""

    scenes = ("a",) * 5 + ("b",) * 2 + ("c",) * 4 + ("d",)

    def __len__(self):
        return len(self.scenes)

    def get_data_info(self, index):
        return {"scene": self.scenes[index]}


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_processes_share_whole_scenes_in_order_and_each_frame_once(monkeypatch, world_size):
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(sampler_module, "get_dist_info", lambda rank=rank: (rank, world_size))
        sampler = DATA_SAMPLERS.build({"type": "SceneSampler", "dataset": _Scenes(), "seed": 3})
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
    assert sorted(sum(shares, [])) == list(range(12))
    for share in shares:
        for scene in "abcd":
            frames = [index for index in range(12) if _Scenes.scenes[index] == scene]
            taken = [index for index in share if index in frames]
            assert taken in ([], frames)
            assert not taken or np.ptp([share.index(i) for i in taken]) == len(taken) - 1
    if world_size == 2:
        assert [len(share) for share in shares] == [6, 6]


def test_distortion_leaves_the_images_that_it_was_given_as_they_are():
    for kind in (np.uint8, np.float32):
        frame = _frame()
        frame["img"] = given = [image.astype(kind) for image in frame["img"]]
        before = [image.copy() for image in given]
        np.random.seed(0)
        TRANSFORMS.build({"type": "DrivingPhotometricDistortion"})(frame)
        np.testing.assert_array_equal(given, before)
