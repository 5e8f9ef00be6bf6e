"""The packages that exports need beyond those of the light core: the extra ``export``."""

from __future__ import annotations

import importlib

NEEDED = ("onnx", "onnxscript", "onnxruntime")

INSTALL = f"pip install {' '.join(NEEDED)}"


def require_packages(function: str) -> None:
    """Check that what exports need is installed.

    Args:
        function: whom the error names.

    Raises:
        ImportError: a package is missing or broken; the message has the command that installs it.
    """
    for name in NEEDED:
        try:
            # Imported, not only looked for: a package whose library is missing is found as well.
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"{function}: expected {', '.join(NEEDED)}, which write, check and run ONNX files, "
                f"got {error}; to install them: {INSTALL}"
            ) from error
