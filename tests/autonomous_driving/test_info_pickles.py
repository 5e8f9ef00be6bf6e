"""Info files hold numbers, texts and arrays; what else is in one, is not run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving.data.pickles import read_pickle, write_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_info_files_hold_comes_back_from_every_protocol(tmp_path, protocol):
    content = {
        "infos": [
            {
                "token": "a",
                "cam_intrinsic": np.arange(9.0).reshape(3, 3),
                "turned": np.arange(6).reshape(2, 3).T,
                "gt_names": np.array(["car", "bus"]),
                "objects": np.array(["car", None], object),
                "valid_flag": np.array([True, False]),
                "scalar": np.float32(2.5),
                "place": (1, 2.5, b"x", None, True, {3}),
            }
        ],
        "metadata": OrderedDict(version="v1.0-mini"),
    }
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_pickle(path)
    assert found["metadata"] == content["metadata"]
    for name, value in content["infos"][0].items():
        np.testing.assert_array_equal(found["infos"][0][name], value)
    write_pickle(path, found)
    assert read_pickle(path)["infos"][0]["place"] == content["infos"][0]["place"]


class _Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_file_that_names_code_is_an_error_and_nothing_is_run(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "infos.pkl"
    for function, argument in ((os.system, f"touch {mark}"), (Path, "x"), (eval, "1 + 1")):
        path.write_bytes(pickle.dumps({"infos": [_Runs(function, argument)]}))
        with pytest.raises(ValueError, match="expected a pickle of numbers, texts and arrays"):
            read_pickle(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1] * 99)[:30]])
def test_a_damaged_file_is_an_error(tmp_path, content):
    path = tmp_path / "infos.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"got {path}"):
        read_pickle(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="got .*nothing.pkl"):
        read_pickle(tmp_path / "nothing.pkl")
