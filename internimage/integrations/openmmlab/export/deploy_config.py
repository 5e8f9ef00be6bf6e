"""mmdeploy's deploy configs: what is read of them, and what is wrong with them."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mmengine.config import Config

from internimage.script import nearest_hint

Backend = Literal["onnxruntime", "tensorrt"]
Form = Literal["grid_sample", "node"]

BACKENDS = ("onnxruntime", "tensorrt")
OPERATORS = ("grid_sample", "node")
OPSETS = {"grid_sample": (16, 17), "node": (11, 17)}
"""Of each form of the operator the versions of ONNX's operators that a config may ask for.

GridSample came with 16. mmdeploy writes nodes of before 18: what it makes of a normalisation is no
valid file with 18, which moved the axes of reductions.
"""

CODEBASES = {"classification": "internimage", "detection": "mmdet", "segmentation": "mmseg"}
"""Of each task what ``codebase_config.type`` of its deploy configs is."""

_WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "onnx_config": {
        "export_params": True,
        "keep_initializers_as_inputs": False,
        "optimize": True,
    },
    "codebase_config": {"post_processing.background_label_id": -1},
}
"""What the original's configs say to mmdeploy's own tool, or to nobody, with what they say."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """A deploy config, checked.

    Args:
        content: the config as it was read.
        graph: the config that the graph is made by: ONNX Runtime's rewriters for TensorRT too. Its
            own write nodes of mmdeploy's plugins (TRTBatchedNMS, MMCVMultiLevelRoiAlign), a library
            for TensorRT 8 alone.
        backend: what the files are for.
        operator: what DCNv3 becomes.
        is_half: weights and products of the network in float16.
        opset: version of ONNX's operators.
    """

    content: Config
    graph: Config
    backend: Backend
    operator: Form
    is_half: bool
    opset: int

    @property
    def input_size(self) -> Sequence[int] | None:
        """(width, height) of a static input, pixels; None for one that may vary."""
        return self.content.onnx_config.get("input_shape")

    @property
    def file_name(self) -> str:
        """The name of the ONNX file."""
        return str(self.content.onnx_config.get("save_file", "end2end.onnx"))

    @property
    def _profiles(self) -> Mapping[str, Any]:
        """Of each input the shapes (N, 3, H, W) that an engine is built for."""
        # mmdeploy has a list, for models in several parts; ours are one.
        inputs = self.content.backend_config.get("model_inputs") or [{}]
        return inputs[0].get("input_shapes", {})

    def check_side(self, side: int, path: Path) -> None:
        """Refuse images of a size that this config is not for.

        Args:
            side: height and width of the model's input, pixels.
            path: where the config is from, for the error.

        Raises:
            ValueError: Its static input has another size, or the engine's sizes leave this one out.
        """
        expected = (
            f"expected a deploy config for the model's {side} x {side} pixels, got {path} for"
        )
        if self.input_size is not None and tuple(self.input_size) != (side, side):
            raise ValueError(f"{expected} {tuple(self.input_size)}")
        for shape in self._profiles.values():
            least, most = shape["min_shape"][2:], shape["max_shape"][2:]
            if not all(low <= side <= high for low, high in zip(least, most, strict=True)):
                sizes = " to ".join("x".join(map(str, sides)) for sides in (least, most))
                raise ValueError(f"{expected} images from {sizes}")

    @property
    def engine_arguments(self) -> list[str]:
        """What ``tensorrt/build_engine.py`` takes besides the files: sizes and memory."""
        backend = self.content.backend_config
        arguments: list[str] = []
        for name, shape in self._profiles.items():
            sizes = ["x".join(map(str, shape[f"{end}_shape"])) for end in _ENDS]
            arguments += ["--profile", f"{name}={':'.join(sizes)}"]
        # In bytes here, in MiB there; 0 is no limit.
        workspace = int((backend.get("common_config") or {}).get("max_workspace_size") or 0) >> 20
        return [*arguments, *(["--workspace", str(workspace)] if workspace else [])]


_ENDS = ("min", "opt", "max")  # TensorRT's words, in build_engine.py's order


def is_deploy_config(config: Mapping[str, Any]) -> bool:
    """Return whether a config says how to convert, and not what."""
    return "codebase_config" in config and "onnx_config" in config


def read_deploy_config(path: Path, *, task: str) -> DeployConfig:
    """Read a deploy config.

    Args:
        path: A Python file.
        task: of :data:`CODEBASES`, whose deploy.py is running.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is a model's config, of another task, or for a backend that is not here.
    """
    if not path.is_file():
        names = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"expected a deploy config, got no file {path}{nearest_hint(str(path), names)}"
        )
    try:
        content = Config.fromfile(str(path))
    except Exception as error:  # a config is a program: anything can go wrong in it
        raise ValueError(
            f"expected a deploy config in {path}, got {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error
    if not is_deploy_config(content):
        what = "a model's config" if "model" in content else "neither"
        raise ValueError(
            f"expected a deploy config (codebase_config, onnx_config) as the first file, got "
            f"{path}, {what}; the order is DEPLOY_CFG MODEL_CFG CHECKPOINT IMG"
        )
    _check_codebase(content, path, task)
    _check_names(content, path)
    _warn_without_effect(content, path)
    backend = _backend_of(content, path)
    # A key of ours: mmdeploy passes over it.
    operator = content.get("operator", "grid_sample")
    if operator not in OPERATORS:
        raise ValueError(f"expected operator in {OPERATORS} in {path}, got {operator!r}")
    opset = content.onnx_config.get("opset_version", 17)  # the highest of OPSETS
    least, most = OPSETS[operator]
    if not isinstance(opset, int) or not least <= opset <= most:
        reason = (
            "GridSample came with opset 16" if operator == "grid_sample" and opset == 11 else ""
        )
        raise ValueError(
            f"expected onnx_config.opset_version from {least} to {most} for operator = "
            f"{operator!r} in {path}, got {opset}{': ' if reason else ''}{reason}"
        )
    return DeployConfig(
        content=content,
        graph=_graph_config(content),
        backend=backend,
        operator=operator,
        is_half=_is_half(content.backend_config),
        opset=opset,
    )


def refuse_deploy_config(config: Config, path: Path) -> None:
    """Refuse a deploy config in the place of a model's.

    Raises:
        ValueError: It is one.
    """
    if is_deploy_config(config):
        raise ValueError(
            f"expected a model's config, got {path}, a deploy config; the order is DEPLOY_CFG "
            "MODEL_CFG CHECKPOINT IMG"
        )


def _check_codebase(content: Config, path: Path, task: str) -> None:
    codebase = content.codebase_config.get("type")
    if codebase == CODEBASES[task]:
        return
    other = {wanted: name for name, wanted in CODEBASES.items()}.get(codebase)
    hint = f": {other}/deploy.py takes it" if other else ""
    raise ValueError(
        f"expected a deploy config of {task} (codebase_config.type = {CODEBASES[task]!r}), got "
        f"{path} with {codebase!r}{hint}"
    )


def _check_names(content: Config, path: Path) -> None:
    if not isinstance(content.codebase_config.get("task"), str):
        raise ValueError(f"expected codebase_config.task in {path}, got none")
    for key in ("input_names", "output_names"):
        names = content.onnx_config.get(key)
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"expected onnx_config.{key} = [a name, ...] in {path}, got {names}")
    file = content.onnx_config.get("save_file", "end2end.onnx")
    # mmdeploy writes STEM.onnx whatever the name says.
    if not isinstance(file, str) or Path(file).name != file or Path(file).suffix != ".onnx":
        raise ValueError(
            f"expected onnx_config.save_file = 'NAME.onnx', without a folder, in {path}, got "
            f"{file!r}"
        )


def _warn_without_effect(content: Config, path: Path) -> None:
    for section, usual in _WITHOUT_EFFECT.items():
        for key, value in usual.items():
            found: Any = content[section]
            for name in key.split("."):
                found = found.get(name) if isinstance(found, Mapping) else None
            if found is not None and found != value:
                # stacklevel 3: the line that called read_deploy_config.
                warnings.warn(
                    f"{section}.{key} = {found!r} of {path} has no effect: nothing here reads it",
                    stacklevel=3,
                )


def _backend_of(content: Config, path: Path) -> Any:
    settings = content.get("backend_config")
    if settings is None:
        leaves = sorted(file.name for file in path.parent.glob("*onnxruntime*.py"))
        hint = f", such as {leaves[0]}, which inherits from such files" if leaves else ""
        raise ValueError(
            f"expected a deploy config with a backend_config{hint}, got {path} without one"
        )
    backend = settings.get("type")
    if backend not in BACKENDS:
        raise ValueError(
            f"expected backend_config.type in {BACKENDS}, got {backend!r} in {path}; OpenVINO "
            "reads the ONNX file as it is"
        )
    if (settings.get("common_config") or {}).get("int8_mode"):
        raise ValueError(
            f"expected no int8_mode, got one in {path}: TensorRT 11 has no calibration any more"
        )
    return backend


def _is_half(backend: Mapping[str, Any]) -> bool:
    common = backend.get("common_config") or {}
    # mmdeploy's words, the first for ONNX Runtime, the second for TensorRT.
    return backend.get("precision") == "fp16" or bool(common.get("fp16_mode"))


def _graph_config(content: Config) -> Config:
    """The config for mmdeploy's exporter: the same with ONNX Runtime as the backend."""
    # The backend's other settings are for what mmdeploy does not do here: see mmdeploy_half.py for
    # the precision, engine_arguments for sizes and memory.
    graph = copy.deepcopy(content)
    graph.backend_config = dict(type="onnxruntime")
    return graph
