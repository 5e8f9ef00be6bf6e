"""Engines are built by another process, whose end is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from internimage.export.engine import build_engine


@pytest.fixture
def checkout(tmp_path: Path):
    """Function from the code of a stand-in for tensorrt/build_engine.py to its checkout."""

    def write(code: str) -> Path:
        script = tmp_path / "tensorrt" / "build_engine.py"
        script.parent.mkdir()
        script.write_text(f"import os, sys\n{code}\n")
        return tmp_path

    return write


def test_the_script_is_told_where_the_engine_goes_and_heard(checkout, capfd):
    root = checkout("print(*sys.argv[1:]); print('a warning', file=sys.stderr)")
    build_engine(root / "x.onnx", root, ["--profile", "input=1x3x8x8"])
    printed, errors = capfd.readouterr()
    assert printed == f"{root}/x.onnx --output {root}/x.engine --profile input=1x3x8x8\n"
    assert errors == "a warning\n"


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        ("sys.exit('build_engine.py: error: no TensorRT')", "no TensorRT", ""),
        (
            "sys.exit('build_engine.py: Foo node\\nbuild_engine.py: error: refused')",
            "refused",
            "build_engine.py: Foo node\n",
        ),
        (
            "sys.exit('build_engine.py: Foo node\\nbuild_engine.py: error: no Foo node')",
            "no Foo node",
            "",
        ),
        ("sys.exit(3)", "exit code 3", ""),
        ("os.kill(os.getpid(), 9)", "the process was ended by SIGKILL", ""),
    ],
    ids=["missing", "refused", "repeated", "silent", "killed"],
)
def test_a_script_that_fails_is_one_line_and_the_file_stays(checkout, code, reason, said, capfd):
    root = checkout(code)
    with pytest.raises(ValueError, match="x.onnx is kept, and no engine was built") as caught:
        build_engine(root / "x.onnx", root)
    assert str(caught.value).endswith(f"from it: {reason}")
    assert capfd.readouterr().err == said
