"""The operator's nodes in ONNX Runtime: bitwise what the kernels give, hostile files and values."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from dcnv3_cases import Case, assert_all_close, run_oracle
from environments import environment
from test_oracle import SMALL_CASES

import ops_dcnv3
from ops_dcnv3 import extension
from ops_dcnv3 import onnxruntime as runtime

pytest.importorskip("onnx", reason="onnx, which makes the models, is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from ort_models import PACKED, SEPARATE, TYPES, attributes, feed, session  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

CASES = [
    *SMALL_CASES,
    Case(batch=3, height=17, width=19, groups=3, group_channels=33, softmax=True),
    Case(batch=1, height=9, width=40, groups=8, group_channels=16, stride=2, softmax=True),
    Case(batch=0, softmax=True),
]
nodes = pytest.mark.parametrize("inputs", [SEPARATE, PACKED], ids=["separate", "packed"])
dtypes = pytest.mark.parametrize("dtype", list(TYPES), ids=lambda d: str(d)[6:])


def answer(case: Case, tensors, inputs, *, num_threads: int = 2) -> torch.Tensor:
    """The output of a node."""
    options = runtime.session_options(num_threads=num_threads)
    made = session(options, inputs, TYPES[tensors[0].dtype], attributes(case))
    return torch.from_numpy(made.run(None, feed(tensors, inputs))[0])


@pytest.fixture
def _keep_library_level() -> Iterator[None]:
    """Put the library's level back."""
    library = ctypes.CDLL(str(runtime.library_path()))
    library.ops_dcnv3_cpu_level.restype = ctypes.c_char_p
    level = library.ops_dcnv3_cpu_level()
    yield
    assert library.ops_dcnv3_set_cpu_level(level) == 0


@nodes
@dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_node_gives_bitwise_what_the_operator_gives(case, dtype, inputs):
    tensors = case.tensors(dtype)
    found = answer(case, tensors, inputs)
    assert found.dtype == dtype
    assert torch.equal(found, ops_dcnv3.dcnv3(*tensors, **case.settings))
    exact = run_oracle(tensors, case.grad_output(), case)[0]
    # a rounding of the numbers and one of the output
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    assert_all_close((found,) * 4, (exact,) * 4, tolerance=tolerance)


@pytest.mark.parametrize("level", extension.cpu_levels())
def test_the_instruction_sets_are_chosen_as_in_pytorch(level, monkeypatch, _keep_library_level):
    monkeypatch.setenv("OPS_DCNV3_CPU_LEVEL", level)
    extension.set_cpu_level(level)  # `compiled` puts it back
    case = Case(height=9, width=11, group_channels=16, softmax=True)
    tensors = case.tensors(torch.float32)
    assert torch.equal(answer(case, tensors, PACKED), ops_dcnv3.dcnv3(*tensors, **case.settings))
    library = ctypes.CDLL(str(runtime.library_path()))
    library.ops_dcnv3_cpu_level.restype = ctypes.c_char_p
    assert library.ops_dcnv3_cpu_level().decode() == level


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(num_threads):
    case = Case(height=33, width=31, groups=5, group_channels=7, softmax=True)
    tensors = case.tensors(torch.float32)
    found = answer(case, tensors, PACKED, num_threads=num_threads)
    assert torch.equal(found, ops_dcnv3.dcnv3(*tensors, **case.settings))


@nodes
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31])
def test_positions_that_are_nowhere_add_nothing(inputs, value):
    case = Case(group_channels=16)
    image, offset, mask = case.tensors(torch.float32)
    assert answer(case, (image, torch.full_like(offset, value), mask), inputs).abs().max() == 0


def test_sessions_in_several_threads_do_not_mix_their_numbers():
    cases = [Case(height=5 + k, width=9, groups=1 + k, softmax=True) for k in range(3)]
    wrong: list[Case] = []

    def work(case: Case) -> None:
        tensors = case.tensors(torch.float32)
        made = session(
            runtime.session_options(num_threads=2), PACKED, TYPES[torch.float32], attributes(case)
        )
        expected = ops_dcnv3.dcnv3(*tensors, **case.settings).numpy()
        for _ in range(50):
            if not np.array_equal(made.run(None, feed(tensors, PACKED))[0], expected):
                wrong.append(case)

    threads = [threading.Thread(target=work, args=(case,)) for case in cases * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_library_needs_no_pytorch():
    """A process that imports neither PyTorch nor this package runs a node."""
    code = (
        "import sys, numpy, onnxruntime; options = onnxruntime.SessionOptions();"
        "options.register_custom_ops_library(sys.argv[1]);"
        "made = onnxruntime.InferenceSession(bytes.fromhex(sys.argv[2]), options);"
        "shapes = [(1, 3, 4, 8), (1, 3, 4, 36), (1, 3, 4, 18)];"
        "values = [numpy.ones(s, 'float32') for s in shapes]; values[1] *= 0;"
        "names = [v.name for v in made.get_inputs()];"
        "print(made.run(None, dict(zip(names, values)))[0][0, 1, 1, 0], 'torch' in sys.modules)"
    )
    from ort_models import model

    content = model(SEPARATE, TYPES[torch.float32], attributes(Case(group_channels=4)))
    command = [sys.executable, "-c", code, str(runtime.library_path()), content.hex()]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.stdout.split() == ["9.0", "False"], done.stderr  # nine points of weight 1


@nodes
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("input", (2, 6, 6, 16)), r"expected offset(_mask)? of shape \(2, 6, 6, .*got \(2, 5, 6"),
        (("input", (1, 5, 6, 16)), r"expected offset(_mask)? of shape \(1, 5, 6, .*got \(2, 5, 6"),
        (("input", (2, 5, 6, 15)), "expected channels % group = 0 with group = 2, got 15"),
        (("input", (2, 5, 6, 0)), "expected channels % group = 0 with group = 2, got 0"),
        (("input", (2, 0, 6, 16)), "expected an output of at least 1 x 1, got 0 x 6"),
        (("input", (5, 6, 16)), "expected input of 4 dimensions .* got 3"),
        (("last", (2, 5, 6, 17)), r"expected (mask|offset_mask) of shape .*got \(2, 5, 6, 17\)"),
        (("last", ()), "expected (mask|offset_mask) of 4 dimensions .* got 0"),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_are_an_error_of_the_session(inputs, change, message):
    case = Case()
    made = session(
        runtime.session_options(num_threads=1), inputs, TYPES[torch.float32], attributes(case)
    )
    values = feed(case.tensors(torch.float32), inputs)
    name, shape = change
    values[inputs[-1] if name == "last" else name] = np.zeros(shape, np.float32)
    with pytest.raises(Exception, match=f"dcnv3::DCNv3(Packed)?: {message}"):
        made.run(None, values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"group": 0}, "expected 1 <= group <= 32768, got 0"),
        ({"kernel_h": -3}, "expected 1 <= kernel_h <= 32768, got -3"),
        ({"kernel_w": 2**62}, "expected 1 <= kernel_w <= 32768, got 4611686018427387904"),
        ({"pad_w": -1}, "expected 0 <= pad_w <= 32768, got -1"),
        ({"softmax": 2}, "expected 0 <= softmax <= 1, got 2"),
        ({"offset_scale": math.nan}, "expected offset_scale = a finite number, got nan"),
        ({"offset_scale": 1}, "expected the attribute offset_scale, a float"),
        ({"stride_h": 1.0}, "expected the attribute stride_h, an int"),
        ({"dilation_h": None}, "expected the attribute dilation_h, an int"),
        ({"remove_center": 1, "kernel_h": 2}, "expected an odd kernel .* got 2 x 3"),
    ],
    ids=str,
)
def test_attributes_that_mean_nothing_are_refused_when_the_model_is_loaded(given, message):
    changed = {k: v for k, v in (attributes(Case()) | given).items() if v is not None}
    with pytest.raises(Exception, match=f"dcnv3::DCNv3Packed: {message}"):
        session(runtime.session_options(), PACKED, TYPES[torch.float32], changed)


def test_a_type_without_a_kernel_is_refused_when_the_model_is_loaded():
    from onnx import TensorProto

    with pytest.raises(Exception, match=r"Type 'tensor\(double\)'.*DCNv3Packed.*is invalid"):
        session(runtime.session_options(), PACKED, TensorProto.DOUBLE, attributes(Case()))


@pytest.mark.parametrize(
    ("num_threads", "error", "message"),
    [
        (0, ValueError, "expected num_threads >= 1, got 0"),
        ("2", TypeError, "expected num_threads = an int, got '2'"),
        (True, TypeError, "expected num_threads = an int, got True"),
    ],
)
def test_a_wrong_number_of_threads_is_an_error(num_threads, error, message):
    with pytest.raises(error, match=f"session_options: {message}"):
        runtime.session_options(num_threads=num_threads)


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"ONNX Runtime, which runs .*`pip install onnxruntime`"):
        runtime.session_options()
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="without its compiled kernels. To build it: `make setup"):
        runtime.library_path()
