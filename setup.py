"""Packaging of ``internimage``, the backbone; the operator ``ops_dcnv3`` is a project of its own.

The names of the dependencies are here, with the lowest version that works; the versions that the
tests ran with are in ``requirements/``. The package's version: ``internimage/__init__.py``.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# Read, not imported: the build needs no PyTorch.
INIT = (ROOT / "internimage" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "([^"]+)"$', INIT, flags=re.MULTILINE)
if VERSION is None:
    raise RuntimeError('setup: expected a line __version__ = "..." in internimage/__init__.py')

TRAIN = [
    "matplotlib>=3.8",
    "PyYAML>=6",
    "rich>=13",
    "scikit-learn>=1.3",
    "tensorboard>=2.15",
    "timm>=1.0",
    "torchvision>=0.25",
    "yacs>=0.1.8",
]
# classification/strategies/deepspeed.py reads what DeepSpeed does not promise to keep.
DEEPSPEED = ["accelerate>=1.0", "deepspeed>=0.19,<0.20"]
# onedl-mmcv is compiled against the installed PyTorch; how: docs/install.md, tools/build_mmcv.py.
OPENMMLAB = [
    *TRAIN,
    "onedl-mmcv>=2.3",
    "onedl-mmdetection>=3.5",
    "onedl-mmengine>=0.10.12",
    "onedl-mmsegmentation>=1.4",
    # matching and polylines of the models for driving
    "scipy>=1.10",
    "shapely>=2.0",
]
# ONNX files: written by torch.onnx through onnxscript, run and compared in ONNX Runtime.
EXPORT = ["onnx>=1.18", "onnxruntime>=1.20", "onnxscript>=0.5"]
DEV = [
    *TRAIN,
    "clang-format",
    "codespell",
    "mypy",
    "openvino>=2025.0",
    "pre-commit",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff",
    "webdataset>=0.2.100",
]

setup(
    name="internimage",
    version=VERSION.group(1),
    description="InternImage: a vision backbone built on deformable convolution v3",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["internimage", "internimage.*"]),
    package_data={"internimage": ["py.typed"]},
    install_requires=[
        "torch>=2.10",
        "ops_dcnv3",
        "huggingface_hub>=0.25",
        "numpy>=1.24",
        "pillow>=10.1",
        "safetensors>=0.4.3",
    ],
    extras_require={
        "train": TRAIN,
        "openmmlab": OPENMMLAB,
        "deepspeed": DEEPSPEED,
        "export": EXPORT,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["internimage = internimage.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
