"""What the tests of both image_demo.py share: a folder to run them in, and the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from PIL import Image

from detection import image_demo as detection_demo
from segmentation import image_demo as segmentation_demo
from tests.detection.tiny_detectors import save_tiny_detector
from tests.detection.tiny_detectors import tiny_config as tiny_detectors_config
from tests.segmentation.tiny_segmentors import make_pixels, save_tiny_segmentor
from tests.segmentation.tiny_segmentors import tiny_config as tiny_segmentors_config

MODULES: dict[str, ModuleType] = {"detection": detection_demo, "segmentation": segmentation_demo}
_SAVE: dict[str, tuple[Callable, Callable]] = {
    "detection": (tiny_detectors_config, save_tiny_detector),
    "segmentation": (tiny_segmentors_config, save_tiny_segmentor),
}


def make_folder(task: str, folder: Path) -> Path:
    """Write a tiny model's ``config.py`` and ``model.pth`` and a folder ``photos`` of two."""
    config, save = _SAVE[task]
    save(config(folder), folder / "model.pth", with_config=False)
    (folder / "photos").mkdir()
    for name in ("a.jpg", "b.png"):
        Image.fromarray(make_pixels()).save(folder / "photos" / name)
    return folder


def run_demo(task: str, folder: Path, monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Run a task's image_demo.py in a folder; return its code, output and errors."""
    monkeypatch.chdir(folder)
    code = MODULES[task].main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
