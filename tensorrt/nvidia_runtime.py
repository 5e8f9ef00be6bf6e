"""NVIDIA's library that is installed here: TensorRT 10 or 11, or TensorRT for RTX.

One Python interface with small differences; what differs is asked for here, once. The folder of
this file is called ``tensorrt`` as well: Python takes it for an empty package where NVIDIA's is
missing, so that being importable proves nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RuntimeName = Literal["tensorrt", "tensorrt_rtx"]
NAMES: tuple[RuntimeName, ...] = ("tensorrt", "tensorrt_rtx")

INSTALL = {
    "tensorrt": "pip install tensorrt",
    "tensorrt_rtx": "pip install tensorrt-rtx",
}
OLDEST_MAJOR = 10  # IPluginV3, which our plugin is, came with it
PLUGIN_NODES = ("DCNv3", "DCNv3Packed", "TRTDCNv3")
BOX_NODES = ("RoiAlign", "NonMaxSuppression")
"""Of R-CNNs, which TensorRT for RTX does not build where there is no GPU, the second nowhere."""
HOW_TO_BUILD = (
    "cmake -S tensorrt/plugin -B tensorrt/plugin/build -DTENSORRT_DIR=<folder of TensorRT> && "
    "cmake --build tensorrt/plugin/build"
)


@dataclass(frozen=True)
class Runtime:
    """The library and what it can do.

    Args:
        name: what is imported.
        module: the imported module.
    """

    name: RuntimeName
    module: Any

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX."""
        return self.name == "tensorrt_rtx"

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{'TensorRT for RTX' if self.is_rtx else 'TensorRT'} {self.module.__version__}"

    @property
    def has_fp16_flag(self) -> bool:
        """Whether the builder may choose float16 where the model says float32: 10 only."""
        return hasattr(self.module.BuilderFlag, "FP16")

    @property
    def takes_plugins(self) -> bool:
        """RTX registers plugins, but the parser of 1.7 ends the process on a node of one."""
        return not self.is_rtx

    def network_flags(self, *, strongly_typed: bool) -> int:
        """What to create a network with.

        Args:
            strongly_typed: take the model's own types; later versions know nothing else.
        """
        # 11 ignores the flag. EXPLICIT_BATCH is not asked for: since 10 there is nothing else.
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 1 << int(flag) if strongly_typed and flag is not None else 0

    def make_logger(self) -> Any:
        """A logger that keeps errors for the one line that ends a script.

        Its ``errors`` and ``warnings`` are those since it was made, oldest first; less is dropped.
        """
        base = self.module.ILogger
        severe = (self.module.ILogger.Severity.ERROR, self.module.ILogger.Severity.INTERNAL_ERROR)

        class Logger(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)  # by name, as NVIDIA's pages ask for of a class of pybind11
                self.errors: list[str] = []
                self.warnings: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity in severe:
                    self.errors.append(" ".join(message.split()))
                elif severity == base.Severity.WARNING:
                    self.warnings.append(" ".join(message.split()))

        return Logger()

    def load_plugin(self, path: Path) -> None:
        """Load a library of plugins, for building and for running.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it is no library, or lacks one that it needs.
            ValueError: this runtime takes none, or the library holds none.
        """
        if not self.takes_plugins:
            raise ValueError(
                f"expected a model without plugin nodes for {self.title}, which takes no plugins: "
                "export it with --operator grid_sample"
            )
        if not path.is_file():
            raise FileNotFoundError(
                f"expected a library of plugins, got none at {path}; to build it: {HOW_TO_BUILD}"
            )
        library = str(path.resolve())
        try:
            # The dynamic linker's words; TensorRT would only say that it failed.
            ctypes.CDLL(library)
        except OSError as error:
            raise OSError(f"expected a library that can be loaded, got {error}") from error
        try:
            handle = self.module.get_plugin_registry().load_library(library)
        except RuntimeError as error:
            raise ValueError(f"{self.title} cannot load the plugins of {path}: {error}") from error
        if handle is None:
            raise ValueError(f"expected a library with getCreators(), got {path} without plugins")


def last_errors(logger: Any, count: int = 2) -> str:
    """Return what the library last complained of.

    Args:
        logger: of :meth:`Runtime.make_logger`.
        count: how many of its errors.
    """
    return "; ".join(logger.errors[-count:]) or "it gives no reason"


def choose_runtime(name: RuntimeName | None = None) -> Runtime:
    """Import the library that is asked for, or the one that is installed.

    Args:
        name: what to import; None is the first that is installed, TensorRT before RTX.

    Raises:
        ImportError: it is not installed, or broken.
        ValueError: it is older than 10.
    """
    # TensorRT before RTX: it takes plugins, and has NonMaxSuppression and RoiAlign.
    reasons = []
    for candidate in [name] if name else NAMES:
        module, reason = _import(candidate)
        if module is None:
            reasons.append(reason)
            continue
        major = re.match(r"\d+", module.__version__)
        if candidate == "tensorrt" and (major is None or int(major[0]) < OLDEST_MAJOR):
            raise ValueError(
                f"expected TensorRT >= {OLDEST_MAJOR}, got {module.__version__}; "
                f"{INSTALL[candidate]} --upgrade"
            )
        return Runtime(candidate, module)
    raise ImportError("; ".join(reasons))


def _import(name: str) -> tuple[Any, str]:
    """Return the module, or None and why there is none."""
    needed = f"engines are built and run by {name}: {INSTALL[name]}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        known = isinstance(error, ModuleNotFoundError) and error.name == name
        return None, needed if known else f"{name} cannot be imported ({error})"
    # A namespace package: this folder, or what an uninstalled package has left behind.
    return (None, needed) if getattr(module, "__file__", None) is None else (module, "")
