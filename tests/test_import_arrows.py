"""The arrows of docs/architecture.md: ops_dcnv3 -> internimage -> the tasks' rooms -> tools.

And the layers within OpenMMLab's integration, whose folder is the largest.

Reads the imports of every file without running it, so that an import inside a function counts too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Room -> the rooms whose code it may import. Tests and benchmarks look at everything: no rooms.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "ops_dcnv3": frozenset(),
    "internimage": frozenset({"ops_dcnv3"}),
    "classification": frozenset({"ops_dcnv3", "internimage"}),
    "autonomous_driving": frozenset({"ops_dcnv3", "internimage"}),
    "detection": frozenset({"ops_dcnv3", "internimage"}),
    "segmentation": frozenset({"ops_dcnv3", "internimage"}),
    "tensorrt": frozenset({"ops_dcnv3", "internimage"}),
    "tools": frozenset(
        {
            *("ops_dcnv3", "internimage"),
            *("autonomous_driving", "classification", "detection", "segmentation"),
        }
    ),
}
OUTSIDERS = frozenset({"tests", "benchmarks", "build"})

# Within OpenMMLab's integration: part -> the parts that it may import; modules of the folder itself
# are the part "".
LAYERED = Path("internimage", "integrations", "openmmlab")
MODELS = frozenset({"", "data"})
TASKS = frozenset({"detection", "segmentation", "driving"})
LAYERS: dict[str, frozenset[str]] = {
    "": frozenset(),
    "data": frozenset({""}),
    "detection": MODELS,
    "segmentation": MODELS,
    "driving": MODELS,
    "scripts": MODELS | TASKS,
    "prediction": MODELS | TASKS | {"scripts"},
    "export": MODELS | TASKS | {"scripts", "prediction"},
}

# Within driving, likewise: readers know no head and no score, and heads, scores and pictures do not
# know one another.
DRIVING = LAYERED / "driving"
READERS = frozenset({"", "data"})
DRIVING_LAYERS: dict[str, frozenset[str]] = {
    "": frozenset(),
    "data": frozenset({""}),
    "lanes": READERS,
    "occupancy": READERS,
    "vector_map": READERS,
    "metrics": READERS,
    "pictures": READERS,
}

# Frameworks with a model zoo of their own, and the folders that may lean on one of them.
OPENMMLAB = frozenset({"mmcv", "mmdeploy", "mmdet", "mmdet3d", "mmengine", "mmpretrain", "mmseg"})
FRAMEWORKS = OPENMMLAB | {"timm", "transformers"}
MAY_USE: dict[Path, frozenset[str]] = {
    Path("internimage", "integrations"): FRAMEWORKS,
    # timm's schedules, augmentation and moving averages; the model is ours.
    Path("classification"): frozenset({"timm"}),
    Path("autonomous_driving"): OPENMMLAB,
    Path("detection"): OPENMMLAB,
    Path("segmentation"): OPENMMLAB,
}

# `import internimage` must not load these: they are slow, optional, or both.
NOT_AT_IMPORT = FRAMEWORKS | {
    *("accelerate", "deepspeed", "matplotlib", "sklearn", "tensorboard", "torchvision", "yaml")
}


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every absolute import, ``importlib.import_module("name")`` included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else None
            name = function.id if isinstance(function, ast.Name) else name
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def python_files(root: Path, room: str) -> list[Path]:
    """The room's Python files without tests and benchmarks, relative to ``root``."""
    files = (path.relative_to(root) for path in (root / room).rglob("*.py"))
    return sorted(path for path in files if not OUTSIDERS & set(path.parts))


def violations(root: Path) -> list[str]:
    """Every import under ``root`` that breaks a rule, as "file:line imports module"."""
    found = []
    for room, allowed in MAY_IMPORT.items():
        for path in python_files(root, room):
            usable = frozenset[str]().union(*(MAY_USE.get(up, ()) for up in path.parents))
            for line, module in imported_modules((root / path).read_text(encoding="utf-8")):
                top = module.split(".")[0]
                forbidden_room = top in MAY_IMPORT and top != room and top not in allowed
                forbidden_framework = top in FRAMEWORKS and top not in usable
                if forbidden_room or forbidden_framework or top == "tests":
                    found.append(f"{path}:{line} imports {module}")
    return found


def layer_violations(
    root: Path, folder: Path = LAYERED, layers: dict[str, frozenset[str]] = LAYERS
) -> list[str]:
    """Every import within a folder, OpenMMLab's integration, that breaks its order of layers."""
    package = ".".join(folder.parts)
    found = []
    for path in python_files(root, str(folder)):
        inside = path.relative_to(folder).parts
        # Importing driving registers all of it.
        if folder == DRIVING and inside == ("__init__.py",):
            continue
        part = inside[0] if len(inside) > 1 else ""
        for line, module in imported_modules((root / path).read_text(encoding="utf-8")):
            if module != package and not module.startswith(f"{package}."):
                continue
            name = module.removeprefix(package).removeprefix(".").split(".")[0]
            imported = name if name in layers else ""
            if imported != part and imported not in layers[part]:
                found.append(f"{path}:{line} imports {module}")
    return found


def test_every_import_follows_the_arrows():
    assert violations(ROOT) == []


def test_every_import_within_openmmlabs_integration_follows_its_layers():
    assert layer_violations(ROOT) == []


def test_every_import_within_driving_follows_its_layers():
    assert layer_violations(ROOT, DRIVING, DRIVING_LAYERS) == []
    folders = {path.parent.name for path in (ROOT / DRIVING).glob("*/__init__.py")}
    assert folders == DRIVING_LAYERS.keys() - {""}


def test_every_folder_of_openmmlabs_integration_is_a_layer_and_stands_in_the_table_in_order():
    folders = {path.parent.name for path in (ROOT / LAYERED).glob("*/__init__.py")}
    assert folders == LAYERS.keys() - {""}
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \|", page, flags=re.MULTILINE)
    assert [row for row in rows if row in LAYERS] == list(LAYERS)[1:]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_every_room_has_files_to_check(room: str):
    assert python_files(ROOT, room)


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("ops_dcnv3/src/ops_dcnv3/a.py", "import internimage", "imports internimage"),
        ("ops_dcnv3/src/ops_dcnv3/a.py", "x = 1\n\nimport timm.models", ":3 imports timm.models"),
        ("internimage/a.py", "from classification.config import get", "imports classification"),
        ("internimage/a.py", "def f():\n    import tools.plot", ":2 imports tools.plot"),
        ("internimage/a.py", "from mmengine import Registry", "imports mmengine"),
        (
            "internimage/a.py",
            "import importlib\nimportlib.import_module('mmdet')",
            ":2 imports mmdet",
        ),
        ("internimage/a.py", "__import__('timm')", "imports timm"),
        ("internimage/a.py", "from tests.helpers import x", "imports tests.helpers"),
        ("classification/data/a.py", "from tools import demo", "imports tools"),
        ("classification/a.py", "import mmengine", "imports mmengine"),
        ("classification/a.py", "from detection import train", "imports detection"),
        ("detection/a.py", "import classification.config", "imports classification"),
        ("autonomous_driving/a.py", "from detection import train", "imports detection"),
        ("detection/a.py", "from timm.data import Mixup", "imports timm.data"),
        ("detection/a.py", "import segmentation.train", "imports segmentation.train"),
        ("segmentation/a.py", "from detection import train", "imports detection"),
        ("internimage/a.py", "import detection.train", "imports detection.train"),
        ("tools/a.py", "import transformers", "imports transformers"),
        ("tools/a.py", "import mmdet", "imports mmdet"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, path: str, source: str, expected: str):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    (message,) = violations(tmp_path)
    assert message.startswith(path)
    assert expected in message


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("backbone.py", "data.faults"),
        ("data/a.py", "scripts.curves"),
        ("detection/a.py", "segmentation"),
        ("segmentation/a.py", "detection.dino"),
        ("driving/a.py", "detection.dino"),
        ("detection/a.py", "driving.model"),
        ("driving/a.py", "scripts.records"),
        ("segmentation/a.py", "prediction.files"),
        ("scripts/a.py", "prediction.loading"),
        ("prediction/a.py", "export.detector"),
    ],
)
def test_an_import_of_a_later_layer_is_found(tmp_path: Path, path: str, module: str):
    (tmp_path / LAYERED / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / LAYERED / path).write_text(
        "from internimage.integrations.openmmlab import convert\n"
        f"from internimage.integrations.openmmlab.{module} import x\n"
    )
    (message,) = layer_violations(tmp_path)
    assert message == f"{LAYERED / path}:2 imports internimage.integrations.openmmlab.{module}"


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("model.py", "data.dataset"),
        ("data/a.py", "lanes.head"),
        ("data/a.py", "metrics.vector_map"),
        ("vector_map/a.py", "lanes.decoder"),
        ("pictures/a.py", "metrics.openlane"),
    ],
)
def test_an_import_of_a_later_layer_of_driving_is_found(tmp_path: Path, path: str, module: str):
    package = ".".join(DRIVING.parts)
    (tmp_path / DRIVING / path).parent.mkdir(parents=True)
    (tmp_path / DRIVING / path).write_text(
        f"from {package} import geometry\nfrom {package}.{module} import x\n"
    )
    (message,) = layer_violations(tmp_path, DRIVING, DRIVING_LAYERS)
    assert message == f"{DRIVING / path}:2 imports {package}.{module}"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops_dcnv3/src/ops_dcnv3/a.py", "from ops_dcnv3 import ops\nfrom . import internimage"),
        ("internimage/a.py", "import ops_dcnv3.modules\nimport timmy"),
        ("internimage/integrations/timm.py", "import timm"),
        ("internimage/integrations/openmmlab/detection/a.py", "from mmdet.apis import x"),
        ("detection/a.py", "import mmdet\nfrom mmengine.config import Config"),
        ("segmentation/a.py", "import mmseg\nfrom mmengine.config import Config"),
        ("classification/a.py", "from internimage import create_model\nimport config"),
        ("classification/data/a.py", "from timm.data import Mixup"),
        ("tools/a.py", "from classification import train"),
        ("internimage/tests/a.py", "import timm"),
        ("ops_dcnv3/benchmarks/a.py", "import internimage"),
    ],
)
def test_an_allowed_import_is_not_reported(tmp_path: Path, path: str, source: str):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert violations(tmp_path) == []


@pytest.mark.slow
def test_importing_internimage_loads_no_framework():
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from internimage import *; print(*sys.modules, sep='\\n')",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "torch" in loaded
    assert {name.split(".")[0] for name in loaded} & NOT_AT_IMPORT == set()


@pytest.mark.slow
def test_importing_the_operator_does_not_load_the_backbone():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, ops_dcnv3; print(*sys.modules, sep='\\n')"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "ops_dcnv3" in loaded
    assert "internimage" not in loaded


def test_of_the_top_level_folders_only_the_backbone_is_a_package():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == {"internimage"}
