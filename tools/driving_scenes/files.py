"""Files of data sets that are the same, byte for byte, whenever they are written."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from internimage.files import write_atomically
from tools.driving_scenes.road import Points

# The least that a zip file holds; of an entry given by name `writestr` would take the clock's.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def write_plain_json(path: Path, content: object) -> None:
    """Writes a JSON file of numbers, strings, lists and dicts; its folder is made."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Writes a compressed ``.npz`` that is the same at any time of the day; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                content = io.BytesIO()
                # Always in C order, which NumPy would else take from the array's strides.
                np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content.getvalue())

    write_atomically(path, write)


def to_quaternion(pose: Points) -> list[float]:
    """Returns the quaternion (w, x, y, z) of a pose (4, 4); SciPy has w last."""
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
    return [w, x, y, z]
