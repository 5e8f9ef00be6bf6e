"""Every wrong argument raises ValueError (TypeError for a wrong kind), naming rule and value."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from dcnv3_cases import Case
from environments import environment

import ops_dcnv3

CASE = Case(height=5, width=6, groups=2, group_channels=4)
OPERATORS = [ops_dcnv3.dcnv3, ops_dcnv3.dcnv3_reference]

operators = pytest.mark.parametrize("operator", OPERATORS, ids=lambda f: f.__name__)


def arguments() -> dict[str, Any]:
    """Arguments that are right, by name."""
    names = ("input", "offset", "mask")
    return dict(zip(names, CASE.tensors(torch.float32), strict=True)) | CASE.settings


def call(operator, changes: dict[str, Any]) -> torch.Tensor:
    """Run the operator on the right arguments, with these changed."""
    given = arguments() | changes
    return operator(given.pop("input"), given.pop("offset"), given.pop("mask"), **given)


@operators
def test_the_unchanged_arguments_are_right(operator):
    assert call(operator, {}).shape == (2, 5, 6, 8)


SHAPES = {  # argument, its wrong shape
    "input of rank 3": ("input", (5, 6, 8)),
    "input of rank 5": ("input", (1, 2, 5, 6, 8)),
    "offset of rank 3": ("offset", (5, 6, 36)),
    "mask of rank 2": ("mask", (5, 18)),
    "offset of another batch": ("offset", (1, 5, 6, 36)),
    "offset of another height": ("offset", (2, 4, 6, 36)),
    "offset of another width": ("offset", (2, 5, 7, 36)),
    "offset of the mask's channels": ("offset", (2, 5, 6, 18)),
    "mask of another batch": ("mask", (3, 5, 6, 18)),
    "mask of another height": ("mask", (2, 6, 6, 18)),
    "mask of another width": ("mask", (2, 5, 5, 18)),
    "mask of too many points": ("mask", (2, 5, 6, 20)),
}


@operators
@pytest.mark.parametrize("name, shape", SHAPES.values(), ids=SHAPES)
def test_a_wrong_shape_is_named(operator, name, shape):
    with pytest.raises(ValueError) as error:
        call(operator, {name: torch.zeros(shape)})
    assert_message(error, operator, name, str(tuple(shape)))


@operators
@pytest.mark.parametrize("name", ["input", "offset", "mask"])
@pytest.mark.parametrize("value", [None, 1.0, [[1.0]], "tensor"], ids=repr)
def test_what_is_not_a_tensor_is_a_type_error(operator, name, value):
    with pytest.raises(TypeError) as error:
        call(operator, {name: value})
    assert_message(error, operator, name, type(value).__name__)


@operators
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_an_input_dtype_without_kernels_is_named(operator, dtype):
    with pytest.raises(ValueError) as error:
        call(operator, {"input": arguments()["input"].to(dtype)})
    assert_message(error, operator, "input", str(dtype))


@operators
@pytest.mark.parametrize("name", ["offset", "mask"])
@pytest.mark.parametrize(
    "input_dtype, dtype",
    [
        (torch.float32, torch.float64),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.float32),
        (torch.float16, torch.bfloat16),
        (torch.bfloat16, torch.float16),
        (torch.bfloat16, torch.float64),
        (torch.float32, torch.int32),
    ],
)
def test_dtypes_that_do_not_go_together_are_named(operator, name, input_dtype, dtype):
    given = {key: arguments()[key].to(input_dtype) for key in ("input", "offset", "mask")}
    with pytest.raises(ValueError) as error:
        call(operator, given | {name: given[name].to(dtype)})
    assert_message(error, operator, name, str(dtype))


@operators
@pytest.mark.parametrize("name", ["offset", "mask"])
def test_another_device_is_named(operator, name):
    with pytest.raises(ValueError) as error:
        call(operator, {name: arguments()[name].to("meta")})
    assert_message(error, operator, name, "meta")


NUMBERS = {  # argument, wrong value
    "groups that do not divide C": ("groups", 3, ValueError),
    "no groups": ("groups", 0, ValueError),
    "negative groups": ("groups", -2, ValueError),
    "groups of a float": ("groups", 2.0, TypeError),
    "kernel of nothing": ("kernel_size", 0, ValueError),
    "negative kernel": ("kernel_size", (3, -3), ValueError),
    "kernel of a float": ("kernel_size", 3.0, TypeError),
    "kernel of three": ("kernel_size", (3, 3, 3), TypeError),
    "kernel of a text": ("kernel_size", "33", TypeError),
    "no stride": ("stride", 0, ValueError),
    "negative stride": ("stride", (1, -1), ValueError),
    "stride of floats": ("stride", (1.0, 1.0), TypeError),
    "stride of None": ("stride", None, TypeError),
    "negative padding": ("padding", -1, ValueError),
    "padding of one": ("padding", (1,), TypeError),
    "no dilation": ("dilation", (0, 1), ValueError),
    "dilation of a float": ("dilation", 1.5, TypeError),
    "scale of a text": ("offset_scale", "1", TypeError),
    "scale of None": ("offset_scale", None, TypeError),
}


@operators
@pytest.mark.parametrize("name, value, kind", NUMBERS.values(), ids=NUMBERS)
def test_a_wrong_number_is_named(operator, name, value, kind):
    with pytest.raises(kind) as error:
        call(operator, {name: value})
    shown = str(value) if kind is ValueError else repr(value)
    assert_message(error, operator, name, shown)


@operators
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_offset_scale_that_is_not_finite_is_named(operator, value):
    with pytest.raises(ValueError) as error:
        call(operator, {"offset_scale": value})
    assert_message(error, operator, "offset_scale", str(value))


@operators
@pytest.mark.parametrize("kernel_size", [2, 4, (3, 2), (2, 3)])
def test_remove_center_needs_a_center(operator, kernel_size):
    with pytest.raises(ValueError) as error:
        call(operator, {"kernel_size": kernel_size, "remove_center": True})
    assert_message(error, operator, "kernel_size", "remove_center")


@operators
def test_remove_center_must_leave_a_point(operator):
    with pytest.raises(ValueError) as error:
        call(operator, {"kernel_size": 1, "padding": 0, "remove_center": True})
    assert_message(error, operator, "remove_center", "1")


@operators
@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_size": 9},
        {"dilation": (1, 5)},
        {"padding": 0, "kernel_size": (6, 1)},
    ],
    ids=str,
)
def test_an_output_of_no_pixels_is_named(operator, changes):
    with pytest.raises(ValueError) as error:
        call(operator, changes)
    assert_message(error, operator, "output", "5 x 6")


@operators
@pytest.mark.parametrize("shape", [(2, 0, 6, 8), (2, 5, 0, 8), (2, 5, 6, 0)])
def test_an_input_of_no_pixels_or_channels_is_an_error(operator, shape):
    with pytest.raises(ValueError, match=re.escape(operator.__name__) + ": expected"):
        call(operator, {"input": torch.zeros(shape)})


@operators
def test_the_settings_are_keyword_only(operator):
    tensors = CASE.tensors(torch.float32)
    with pytest.raises(TypeError, match="positional"):
        operator(*tensors, 3, 1, 1, 1, 2)


def assert_message(error, operator, *parts: str) -> None:
    """The text is `<function>: expected ..., got ...` and holds every part."""
    text = str(error.value)
    assert text.startswith(f"{operator.__name__}: expected "), text
    assert ", got " in text, text
    for part in parts:
        assert part in text, f"{part!r} is not in: {text}"


def test_too_little_memory_is_told_in_pytorchs_own_words(native):
    """More bytes than an address can name, so that no system promises them."""
    side = 1 << 19
    image, offset, mask = (torch.zeros(1).expand(1, side, side, size) for size in (512, 18, 9))
    with pytest.raises(RuntimeError, match="allocate memory"):
        native(image, offset, mask, groups=1)
    assert native(*Case().tensors(torch.float32), **Case().settings).isfinite().all()


def test_an_output_that_does_not_fit_is_told_where_the_arguments_do(native):
    """100 MB of arguments, and 2^47 bytes of output: more than a process can address."""
    side, channels = 2049, 1 << 23
    offset, mask = torch.zeros(1, side, side, 2), torch.zeros(1, side, side, 1)
    image = torch.zeros(1, 1, 1, channels)
    with pytest.raises(RuntimeError, match="allocate memory"):
        native(image, offset, mask, kernel_size=1, padding=1024, groups=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
@pytest.mark.parametrize("entry", ["dcnv3", "dcnv3_packed"])
def test_maps_of_a_backward_pass_that_do_not_fit_are_told_where_the_gradients_do(compiled, entry):
    """128 MiB of input and of its gradient, and eight float32 maps of 256 MiB; 1 GiB is left."""
    script = """
        import resource, sys, torch
        from ops_dcnv3 import ops
        torch.set_num_threads(8)
        image = torch.zeros(1, 4096, 4096, 4, dtype=torch.bfloat16, requires_grad=True)
        points = torch.zeros(1, 64, 64, 27, dtype=torch.bfloat16)
        settings = dict(kernel_size=3, stride=64, padding=1, dilation=1, groups=1)
        if sys.argv[1] == "dcnv3":
            output = ops.dcnv3(image, points[..., :18], points[..., 18:], **settings)
        else:
            static = ops.check_geometry(
                "script", **settings, offset_scale=1.0, remove_center=False
            )
            output = ops.dcnv3_packed(image, points, static, False)
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, -1))
        try:
            output.backward(torch.ones_like(output))
        except RuntimeError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), entry]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "allocate memory" in done.stdout
