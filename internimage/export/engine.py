"""A TensorRT engine from an exported file, built by the checkout's ``tensorrt/build_engine.py``.

In another process: TensorRT ends its own where a driver or a plugin is missing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PREFIXES = ("build_engine.py: ", "error: ")  # what the script puts before its lines


def build_engine(file: Path, root: Path, arguments: Sequence[str] = ()) -> None:
    """Build X.engine beside X.onnx; what the script prints is shown.

    Args:
        file: the ONNX file.
        root: the checkout.
        arguments: further ones for the script, such as ``--profile``.

    Raises:
        ValueError: TensorRT is missing, refuses the model or ends the process; the ONNX file stays.
    """
    command = [sys.executable, str(root / "tensorrt" / "build_engine.py"), str(file)]
    command += ["--output", str(file.with_suffix(".engine")), *arguments]
    sys.stdout.flush()  # what was said so far comes before what the script says
    # The last line of stderr becomes the error's reason; stdout, the report, goes through.
    done = subprocess.run(command, text=True, stderr=subprocess.PIPE, check=False)
    lines = done.stderr.strip().splitlines()
    reason = None
    if done.returncode < 0:  # how subprocess says that a signal ended it
        reason = f"the process was ended by {_name(-done.returncode)}"
    elif done.returncode:
        reason = lines.pop() if lines else f"exit code {done.returncode}"
        for prefix in _PREFIXES:
            reason = reason.removeprefix(prefix)
        # The reason repeats the first of the lines before it.
        lines = [line for line in lines if line.removeprefix(_PREFIXES[0]) not in reason]
    sys.stderr.writelines(f"{line}\n" for line in lines)
    if reason is not None:
        raise ValueError(f"{file} is kept, and no engine was built from it: {reason}")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
