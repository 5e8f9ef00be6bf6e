"""detection/deploy.py: mmdeploy's route, the dispatch to the exact one, and mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn

from internimage.integrations.openmmlab.export import deploy, mmdeploy_adapter
from internimage.integrations.openmmlab.export.mmdeploy_differences import describe_difference
from internimage.integrations.openmmlab.prediction.detector import build_detector
from tests.detection.exportable_detectors import save_detector
from tests.detection.small_dino import build, small_config
from tests.script_runs import ROOT, run_here

pytest.importorskip("mmdeploy", reason=mmdeploy_adapter.INSTALL)

CONFIGS = ROOT / "detection" / "deploy" / "configs" / "mmdet"
INSTANCES = CONFIGS / "instance-seg" / "instance-seg_onnxruntime_dynamic.py"
BOXES = CONFIGS / "detection" / "detection_onnxruntime_dynamic.py"

pytestmark = pytest.mark.usefixtures("signals_and_warnings_as_before")

main = partial(deploy.main, "deploy.py", ROOT / "detection" / "configs")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that the test pipeline makes 96 x 128 of: nothing is padded."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    generator = np.random.default_rng(0)
    pixels = cv2.resize(generator.integers(0, 255, (9, 12, 3), dtype=np.uint8), (128, 96))
    cv2.imwrite(str(path), pixels)
    return path


Converted = tuple[Path, Path, Path, str]


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Callable[..., Converted]:
    """Function from a kind of detector and flags to its config, checkpoint, work dir, what is said.

    The checkpoint does not say what its classes are called.
    """

    def run(kind: str, deploy_config: Path, *flags: str, capture: Any, **changes: Any) -> Converted:
        folder = tmp_path_factory.mktemp(kind)
        config, checkpoint = save_detector(folder, kind, **changes)
        saved = torch.load(checkpoint, weights_only=True)
        torch.save({"state_dict": saved["state_dict"]}, checkpoint)
        arguments = [str(path) for path in (deploy_config, config, checkpoint, photo)]
        code = run_here(main, *arguments, "--work-dir", "out", *flags, folder=folder)
        said = capture.readouterr()
        assert code == 0, said.err
        return config, checkpoint, folder / "out", said.out

    return run


@pytest.mark.slow
def test_a_dino_is_converted_exactly_and_all_files_are_there(
    convert: Any, photo: Path, capsys: pytest.CaptureFixture[str]
):
    # More queries than detections: mmdeploy itself takes the one for the other.
    config, checkpoint, folder, said = convert(
        "dino", BOXES, "--dump-info", capture=capsys, model__num_queries=30
    )
    names = {"end2end.onnx", "deploy.json", "pipeline.json", "detail.json"}
    pictures = {"output_onnxruntime.jpg", "output_pytorch.jpg"}
    assert {path.name for path in folder.iterdir()} == names | pictures
    detail = json.loads((folder / "detail.json").read_text())
    assert detail["codebase"]["config"] == str(config)
    assert json.loads((folder / "deploy.json").read_text())["models"][0]["net"] == "end2end.onnx"

    # ONNX's own operators alone: no library of mmdeploy's is needed.
    graph = onnx.load(str(folder / "end2end.onnx")).graph
    assert {node.domain for node in graph.node} == {""}
    image = cv2.imread(str(photo))
    # A batch, of which every image has boxes of its own.
    images = [image, image[::-1].copy(), image[:, ::-1].copy()]
    detector = build_detector(checkpoint, config)
    given = detector.model.data_preprocessor(
        {
            "inputs": [torch.from_numpy(each).permute(2, 0, 1) for each in images],
            "data_samples": [DetDataSample() for _ in images],
        }
    )
    session = onnxruntime.InferenceSession(folder / "end2end.onnx")
    dets, labels = session.run(None, {"input": given["inputs"].numpy()})
    for index, each in enumerate(images):
        expected = detector.detect(each, score_threshold=0.0)
        assert len(expected) == 10
        np.testing.assert_allclose(dets[index, :, 4], expected.scores, atol=1e-5)
        np.testing.assert_allclose(dets[index, :, :4], expected.bboxes, atol=1e-2)
        np.testing.assert_array_equal(labels[index], expected.labels)
    assert "are the same; their boxes differ by up to" in said


@pytest.mark.slow
def test_a_mask_rcnn_is_converted_and_runs_with_our_operators_library(
    convert: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    node = tmp_path / "node.py"
    node.write_text(f"_base_ = [{str(INSTANCES)!r}]\noperator = 'node'\n")
    _, _, folder, said = convert("mask_rcnn", node, capture=capsys)
    graph = onnx.load(str(folder / "end2end.onnx")).graph
    domains = [node.domain for node in graph.node if node.domain]
    assert domains == ["dcnv3"] * 5
    assert [output.name for output in graph.output] == ["dets", "labels", "masks"]
    # Of random weights' boxes mmdeploy's own non-maximum suppression keeps others; those that both
    # keep are the same.
    numbers = re.search(
        r"PyTorch finds (\d+), (\d+) of .* up to (\S+) pixels, scores by (\S+)", said
    )
    assert numbers is not None
    assert int(numbers[1]) == 20
    assert int(numbers[2]) >= 8
    assert float(numbers[3]) < 1e-2
    assert float(numbers[4]) < 1e-4


@pytest.mark.slow
def test_what_mmdeploy_cannot_follow_is_one_line_and_leaves_nothing(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
):
    config, checkpoint = save_detector(tmp_path, "cascade")
    arguments = [str(path) for path in (INSTANCES, config, checkpoint, photo)]
    assert run_here(main, *arguments, "--work-dir", "out", folder=tmp_path) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "deploy.py: error: expected a CascadeRCNN that mmdeploy can trace" in said
    assert "the exact export does without" in said
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_an_image_of_another_shape_than_a_static_files_is_one_line_and_leaves_the_model(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
):
    config, checkpoint = save_detector(tmp_path, "mask_rcnn")
    oblong = tmp_path / "oblong.png"
    cv2.imwrite(str(oblong), np.zeros((64, 256, 3), np.uint8))
    static = INSTANCES.with_name("instance-seg_onnxruntime_static.py")
    arguments = [str(path) for path in (static, config, checkpoint, photo)]
    flags = ["--work-dir", "out", "--test-img", str(photo), str(oblong)]
    assert run_here(main, *arguments, *flags, folder=tmp_path) == 2
    said = capsys.readouterr()
    line = said.err.strip().splitlines()[-1]
    start = "deploy.py: error: out/end2end.onnx is converted and kept, but the comparison with "
    assert line.startswith(f"{start}PyTorch on {oblong} fails: ")
    assert "the file takes inputs of IMG's shape alone" in line
    assert f"{photo}: " in said.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["end2end.onnx"]
    onnxruntime.InferenceSession(tmp_path / "out" / "end2end.onnx")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AssertionError(), "x.onnx is converted and kept, but drawing fails: AssertionError in "),
        (OSError("no space left"), "x.onnx is converted and kept, but drawing fails: no space"),
    ],
)
def test_whatever_a_step_after_the_conversion_raises_becomes_a_line(
    error: Exception, expected: str
):
    from internimage.integrations.openmmlab.export.mmdeploy_files import after_conversion

    with pytest.raises(ValueError, match=expected), after_conversion(Path("x.onnx"), "drawing"):
        raise error


@pytest.mark.parametrize(
    ("task", "reason", "expected"),
    [
        ("mmdet", "TensorRT for RTX 1.7.1 cannot parse x.onnx: NonZero", "--boxes loops"),
        ("mmdet", "expected TensorRT, got none", "expected TensorRT, got none"),
        ("mmseg", "TensorRT for RTX 1.7.1 cannot parse x.onnx: Foo", "parse x.onnx: Foo"),
    ],
)
def test_a_detector_that_rtx_cannot_parse_is_sent_to_the_exact_export(
    task: str,
    reason: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    from internimage.integrations.openmmlab.export import mmdeploy_files
    from internimage.integrations.openmmlab.export.deploy_arguments import parse_deploy
    from internimage.integrations.openmmlab.export.deploy_config import read_deploy_config

    def refuse(*_: Any) -> None:
        raise ValueError(reason)

    monkeypatch.setattr(mmdeploy_files, "build_engine", refuse)
    name = "detection_tensorrt_static-800x1344.py"
    leaf = CONFIGS / "detection" / name
    deploy_config = read_deploy_config(leaf, task="detection")
    deploy_config.content.codebase_config.type = task
    words = [str(leaf), MODEL, "x.pth", "x.png", "--work-dir", str(tmp_path)]
    request: Any = parse_deploy("deploy.py", words, task="detection")
    with pytest.raises(ValueError, match=expected):
        mmdeploy_files.finish(request, deploy_config, {}, ROOT)
    assert f"{tmp_path / 'end2end.onnx'} is written" in capsys.readouterr().out


def test_masks_of_all_classes_together_are_repeated_and_stay_the_same(tmp_path: Path):
    path, _ = save_detector(tmp_path, "mask_rcnn")
    from mmdet.registry import MODELS

    model = Config.fromfile(path).model
    model.roi_head.mask_head.class_agnostic = True
    detector = MODELS.build(model).eval()
    head, maps = detector.roi_head.mask_head, torch.randn(2, 32, 14, 14)
    with torch.no_grad():
        before = head(maps)
        mmdeploy_adapter.repeat_masks_by_class(detector)
        after = head(maps)
    assert before.shape[1] == 1
    assert after.shape[1] == head.num_classes == 3
    assert not head.class_agnostic
    torch.testing.assert_close(after, before.expand_as(after))


@pytest.mark.slow
def test_mmdeploys_adaptations_leave_pytorchs_exporter_as_it_was():
    mmdeploy_adapter.import_mmdeploy()
    before = torch.onnx.export
    with mmdeploy_adapter.torchscript_exporter():
        assert torch.onnx.export.keywords == {"dynamo": False}  # type: ignore[attr-defined]
    assert torch.onnx.export is before
    from mmdeploy.core import SYMBOLIC_REWRITER

    records = SYMBOLIC_REWRITER._registry._rewrite_records
    names = set(records)
    with mmdeploy_adapter.own_operators("grid_sample", 17):
        assert names - set(records) == {"grid_sampler", "layer_norm"}
    assert set(records) == names


def sample(boxes: list[list[float]], scores: list[float]) -> DetDataSample:
    from mmengine.structures import InstanceData

    labels = torch.zeros(len(scores), dtype=torch.long)
    found = InstanceData(bboxes=torch.tensor(boxes), scores=torch.tensor(scores), labels=labels)
    return DetDataSample(pred_instances=found)


def test_the_difference_is_that_of_the_objects_that_both_models_find():
    ours = sample([[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 9, 9]], [0.9, 0.8, 0.1])
    theirs = sample([[50, 50, 60, 60.5], [80, 80, 90, 90]], [0.75, 0.6])
    assert describe_difference(ours, theirs) == (
        "2 objects of score >= 0.3, PyTorch finds 2, 1 of them are the same; their boxes differ by "
        "up to 0.5 pixels, scores by 0.05"
    )


MODEL = str(ROOT / "detection" / "configs" / "digit_scenes" / "mask_rcnn_internimage_n_fpn.py")
SEGMENTATION = ROOT / "segmentation" / "deploy" / "configs" / "mmseg"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected DEPLOY_CFG MODEL_CFG CHECKPOINT IMG, which converts by mmdeploy, or"),
        ([MODEL, "x.pth"], "got 2 files: .*--output FILE.onnx is missing"),
        ([MODEL, str(INSTANCES), "x.pth", "x.png"], "as the first file, .* a model's config"),
        ([str(INSTANCES), str(INSTANCES), "x.pth", "x.png"], "a model's config, got .* a deploy"),
        (
            [str(SEGMENTATION / "segmentation_onnxruntime_static.py"), MODEL, "x.pth", "x.png"],
            "segmentation/deploy.py takes it",
        ),
        ([str(INSTANCES), MODEL, "x.pth", "x.png"], "existing checkpoint, got x.pth"),
        ([str(INSTANCES), MODEL, "x.pth", "x.png", "--workdir", "w"], "did you mean --work-dir"),
        ([str(INSTANCES), MODEL, "x.pth", "x.png", "--half"], "flags of one route, got --half"),
        ([str(INSTANCES), MODEL, "x.pth", "x.png", "--quant"], "no --quant, got one: it is for"),
        ([str(INSTANCES), MODEL, "x.pth", "x.png", "--uri", "1.2.3.4:5"], "no --uri, got one"),
        (
            [str(INSTANCES), MODEL, "x.pth", "x.png", "--calib-dataset-cfg", "x.py"],
            "int8 is not offered: TensorRT 11 has no calibration",
        ),
        ([str(INSTANCES), MODEL, "x.pth", "x.png", "--device", "gpu"], "--device cpu or cuda:N"),
        ([str(INSTANCES), MODEL, "x.pth", "x.png", "--device", "meta"], "cpu or cuda:N, got meta"),
        ([str(INSTANCES), MODEL, "x.pth", "x.png", "--device", "mps"], "cpu or cuda:N, got mps"),
        (
            [str(INSTANCES), MODEL, "x.pth", "x.png", "--device", "cuda:99"],
            "a device of this machine, got --device cuda:99, with",
        ),
        (
            [str(INSTANCES), MODEL, "x.pth", "x.png", "--test-img", "a/p.png", "b/p.png"],
            "--test-img with names of their own, got a/p.png and b/p.png",
        ),
        ([MODEL, "x.pth", "--output", "x.onnx", "--dump-info"], "one route, got --dump-info"),
        ([MODEL, "x.pth", "--output", "x.onnx", "--argmax"], "--argmax for segmentation alone"),
        ([MODEL, "x.pth", "--output", "x.onnx", "--opset", "20"], "got 20: opset 20 calls"),
        ([MODEL, "x.pth", "--output", "x.onnx"], "existing checkpoint, got x.pth"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run_here(main, *arguments, folder=tmp_path) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("deploy.py: error: ")
    assert re.search(expected, line), line
    assert list(tmp_path.iterdir()) == []


def test_pictures_have_the_whole_names_of_images_that_share_a_stem():
    from internimage.integrations.openmmlab.export.deploy_arguments import parse_deploy

    def endings(*images: str) -> list[str]:
        words = [str(INSTANCES), MODEL, "x.pth", "x.png", "--test-img", *images]
        request: Any = parse_deploy("deploy.py", words, task="detection")
        return request.picture_endings

    assert endings("a/p.png") == [""]
    assert endings("p.png", "p.jpg", "q.png") == ["_p.png", "_p.jpg", "_q"]


def test_a_node_of_before_grid_sample_is_refused_for_deformable_attention():
    dino, plain = build(small_config()), nn.Linear(1, 1)
    for form, opset in (("node", 16), ("grid_sample", 17)):
        mmdeploy_adapter.check_opset(dino, form, opset)  # type: ignore[arg-type]
    mmdeploy_adapter.check_opset(plain, "node", 11)
    with pytest.raises(ValueError, match="opset_version >= 16 for operator = 'node' .*got 11"):
        mmdeploy_adapter.check_opset(dino, "node", 11)


def test_a_folder_in_a_files_place_leaves_the_work_dir_as_it_was(tmp_path: Path):
    from internimage.integrations.openmmlab.export.mmdeploy_files import files_for

    (tmp_path / "z.onnx").mkdir()
    (tmp_path / "a.jpg").write_text("before")
    with pytest.raises(ValueError, match="got the folder .*z.onnx"), files_for(tmp_path) as folder:
        (folder / "a.jpg").write_text("after")
        (folder / "z.onnx").write_text("graph")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "z.onnx"]
    assert (tmp_path / "a.jpg").read_text() == "before"
