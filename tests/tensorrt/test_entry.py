"""The plugin's C entry: checks, kernels run on the host, and what nvcc makes of it."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.tensorrt.node_cases import NODES, Node, assert_as_expected
from tests.tensorrt.plugin_builds import PLUGIN, compile_entry_for_gpu, compile_entry_for_host

CODES = {"float32": 0, "float16": 1}
SIZES = ("batch", "height", "width", "channels", "out_height", "out_width")
SETTINGS = tuple(
    f"{name}_{axis}" for name in ("kernel", "stride", "pad", "dilation") for axis in "hw"
)
FLAGS = ("remove_center", "softmax", "dtype", "point_dtype")
POINTERS = ("input", "offset", "mask", "output", "stream")


class Call(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in (*SIZES, *SETTINGS, "group")),
        ("offset_scale", ctypes.c_double),
        *((name, ctypes.c_int32) for name in FLAGS),
        *((name, ctypes.c_int64) for name in ("offset_channels", "mask_channels")),
        *((name, ctypes.c_void_p) for name in POINTERS),
    ]


def load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for function in (library.dcnv3_forward, library.dcnv3_check):
        function.argtypes = [ctypes.POINTER(Call)]
        function.restype = ctypes.c_char_p
    return library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load(compile_entry_for_host(tmp_path_factory.mktemp("entry")))


def call_of(node: Node, inputs: tuple[np.ndarray, ...], output: np.ndarray) -> Call:
    call = Call(**node.attributes)
    call.batch, call.height, call.width, call.channels = inputs[0].shape
    call.out_height, call.out_width = output.shape[1:3]
    call.dtype, call.point_dtype = CODES[str(inputs[0].dtype)], CODES[str(inputs[1].dtype)]
    call.offset_channels = inputs[1].shape[3]
    call.mask_channels = 0 if node.packed else inputs[2].shape[3]
    call.input, call.offset, call.output = (
        array.ctypes.data for array in (inputs[0], inputs[1], output)
    )
    call.mask = None if node.packed else inputs[2].ctypes.data
    return call


def forward(library: ctypes.CDLL, node: Node, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    output = np.full(node.output_size, np.nan, node.dtype)
    answer = library.dcnv3_forward(call_of(node, inputs, output))
    assert answer is None, answer
    return output


def refusal(library: ctypes.CDLL, **changes: float | None) -> str:
    node = Node()
    inputs = node.inputs()
    output = np.full(node.output_size, 7.0, node.dtype)
    call = call_of(node, inputs, output)
    for name, value in changes.items():
        setattr(call, name, value)
    answer = library.dcnv3_forward(call)
    assert (output == 7.0).all()
    return "" if answer is None else answer.decode()


@pytest.mark.parametrize("name", NODES)
def test_it_computes_what_the_operator_defines(library: ctypes.CDLL, name: str):
    node = NODES[name]
    inputs = node.inputs()
    assert_as_expected(forward(library, node, inputs), node, inputs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_offsets_that_lead_nowhere_change_only_their_own_points(library: ctypes.CDLL, value: float):
    node = Node(softmax=1)
    image, offset, mask = node.inputs()
    offset[0, 0] = value
    inputs = (image, offset, mask)
    output = forward(library, node, inputs)
    assert_as_expected(output, node, inputs)
    assert (output[0, 0] == 0).all()


def test_an_empty_batch_is_nothing_to_do(library: ctypes.CDLL):
    assert refusal(library, batch=0, input=None, output=None) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": -1}, "expected batch from 0 to 2^30, got -1"),
        ({"height": 0}, "expected height from 1 to 2^30, got 0"),
        ({"width": 2**40}, "expected width from 1 to 2^30"),
        ({"kernel_w": 0}, "expected kernel_w from 1"),
        ({"stride_h": 0}, "expected stride_h from 1"),
        ({"stride_w": -2}, "expected stride_w from 1 to 2^30, got -2"),
        ({"dilation_h": 0}, "expected dilation_h from 1"),
        ({"pad_w": -1}, "expected pad_w from 0"),
        ({"group": 0}, "expected group from 1"),
        ({"group": 5}, "expected channels that group = 5 divides, got 32"),
        ({"dtype": 2}, "expected a dtype of 0 (float32) or 1 (float16), got 2"),
        ({"point_dtype": 1}, "expected offsets and weights of float32 beside a float32 input"),
        ({"kernel_h": 4, "pad_h": 2, "remove_center": 1}, "expected an odd kernel"),
        ({"out_height": 6}, "expected an output of 7 x 6 pixels, got 6 x 6"),
        ({"stride_h": 2, "stride_w": 2}, "expected an output of 4 x 3 pixels, got 7 x 6"),
        ({"kernel_h": 99}, "expected an output of 0 x 6 pixels"),
        ({"offset_channels": 35}, "expected 36 numbers a pixel of offsets, got 35"),
        ({"remove_center": 1}, "expected 32 numbers a pixel of offsets, got 36"),
        ({"mask_channels": 17}, "expected 18 numbers a pixel of weights, got 17"),
        ({"mask_channels": 0}, "expected at least 54 numbers a pixel of offsets, got 36"),
        ({"kernel_h": 1, "kernel_w": 1, "pad_h": 0, "pad_w": 0, "remove_center": 1}, "1 x 1"),
        ({"batch": 2**29, "height": 2**29, "out_height": 2**29}, "more than 2^30 pixels"),
        (
            dict.fromkeys(("height", "width", "kernel_h", "kernel_w"), 2**29)
            | {"group": 32, "out_height": 1, "out_width": 1, "pad_h": 0, "pad_w": 0},
            "more than 2^30 sampling points",
        ),
        ({"input": None}, "expected pointers to all tensors, got null"),
        ({"mask": None}, "expected pointers to all tensors, got null"),
        ({"stream": 1}, "the CUDA kernel cannot be started: the host has no streams"),
    ],
)
def test_a_wrong_call_is_refused_and_writes_nothing(
    library: ctypes.CDLL, changes: dict[str, int | None], words: str
):
    assert words in refusal(library, **changes)


def test_shapes_can_be_checked_without_tensors(library: ctypes.CDLL):
    """As the plugin does when TensorRT tells it new shapes."""
    node = Node()
    call = call_of(node, node.inputs(), np.empty(node.output_size, node.dtype))
    call.input = call.offset = call.mask = call.output = None
    assert library.dcnv3_check(call) is None
    call.batch, call.height, call.out_height = 2**29, 2**29, 2**29
    assert b"more than 2^30 pixels" in library.dcnv3_check(call)


def test_a_missing_call_is_refused(library: ctypes.CDLL):
    assert library.dcnv3_forward(None) == b"expected a call, got null"
    assert library.dcnv3_check(None) == b"expected a call, got null"


def test_the_structure_of_these_tests_is_that_of_the_header():
    text = (PLUGIN / "entry.h").read_text()
    (body,) = re.findall(r"struct Dcnv3Call \{(.*?)\n\};", text, re.DOTALL)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    names = [
        name.strip(" *")
        for line in re.findall(r"(?:int64_t|int32_t|double|void\*) ([^;]+);", body)
        for name in line.split(",")
    ]
    assert names == [field[0] for field in Call._fields_]


@pytest.mark.slow
def test_on_a_machine_without_a_gpu_the_compiled_kernels_say_so(tmp_path: Path):
    """On one with a GPU the same call would read host memory: the checks come first there too."""
    library = load(compile_entry_for_gpu(tmp_path))
    assert "expected group from 1" in refusal(library, group=0)
    if Path("/dev/nvidiactl").exists() or os.environ.get("CUDA_VISIBLE_DEVICES"):
        pytest.skip("this machine may have a GPU, which must not be handed addresses of the host")
    assert "no CUDA device can be used: " in refusal(library)
