"""The benchmark of the runtimes: every table is there, and what it times is right."""

from __future__ import annotations

import os
import re

import pytest

from classification.benchmarks import bench_deployment

TINY = ["--model", "internimage_test_t", "--size", "64", "--rounds", "1", "--passes", "1"]


@pytest.mark.slow
def test_runtimes_take_turns_on_the_same_model(capsys, monkeypatch):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    names = ["onnxruntime", "onnxruntime_node", "openvino"]
    bench_deployment.main([*TINY, "--threads", "1", "--only", *names])
    printed = capsys.readouterr().out
    models, files, layers = printed.split("\n\n")[2:]
    titles = [line.split(" | ")[0].strip("| ") for line in models.splitlines()[2:]]
    assert titles == [bench_deployment.TITLES[name] for name in names]
    differences = [float(line.split(" | ")[-1].strip("| \n")) for line in models.splitlines()[2:]]
    assert 0 < max(differences) < 1e-5
    assert [line.split(" | ")[3:5] for line in files.splitlines()[2:]] == [
        ["5", "0"],
        ["0", "5"],
        ["5", "0"],
    ]
    assert re.findall(r"\| (1 x \d+ x \d+ x \d+, \d) \|", layers) == [
        "1 x 16 x 16 x 16, 1",
        "1 x 8 x 8 x 32, 2",
        "1 x 4 x 4 x 64, 4",
        "1 x 2 x 2 x 128, 8",
    ]


def test_a_library_that_is_not_given_cannot_take_part(capsys):
    with pytest.raises(SystemExit, match="2"):
        bench_deployment.main([*TINY, "--only", "onnxruntime_library"])
    assert "onnxruntime_library needs --library" in capsys.readouterr().err
