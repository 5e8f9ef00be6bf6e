"""The compiler's report: read right from recorded output, and true of the kernels here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from benchmark_scripts import imported

RECORDS = Path(__file__).parent / "fixtures" / "sass"
MODULES = ("sass", "sass_flow", "sass_report", "sass_times", "sass_tools")
MODULES += ("goals", "measure", "workloads")
DTYPES = ("Float16", "BFloat16")
NAME = "_Z3sumPKfPfii"  # of the recorded kernel


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The files of the report by name; they are scripts, not a package."""
    with imported(*MODULES) as modules:
        yield modules


@pytest.fixture(scope="module")
def sass(modules: dict[str, ModuleType]) -> ModuleType:
    """The parsers."""
    return modules["sass"]


@pytest.fixture(scope="module")
def code_of(modules: dict[str, ModuleType]) -> Callable[[str, str], Any]:
    """Function from a disassembly and a name in it to the code of that kernel."""

    def read(text: str, name: str) -> Any:
        return modules["sass_flow"].Code(modules["sass"].parse_sass(text)[name])

    return read


@pytest.fixture(scope="module")
def code(code_of: Callable[[str, str], Any]) -> Any:
    """The recorded kernel."""
    return code_of((RECORDS / "sum.sass.txt").read_text(), NAME)


def test_registers_spills_and_shared_memory_are_read(sass):
    found = sass.parse_ptxas((RECORDS / "sum.ptxas.txt").read_text())
    assert found == {NAME: sass.Resources(12, stack=0, spill_stores=0, spill_loads=0, shared=384)}


def test_spills_are_told_apart(sass):
    text = (
        (RECORDS / "sum.ptxas.txt")
        .read_text()
        .replace(
            "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
            "16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads",
        )
    )
    (found,) = sass.parse_ptxas(text).values()
    assert (found.stack, found.spill_stores, found.spill_loads) == (16, 8, 12)


def test_messages_of_another_form_are_an_error(sass):
    with pytest.raises(ValueError, match="parse_ptxas: expected registers and spills"):
        sass.parse_ptxas("ptxas info : Compiling entry function 'f' for 'sm_90'\n")


def test_the_launch_bounds_are_read(sass):
    assert sass.parse_block_sizes((RECORDS / "sum.ptx").read_text()) == {NAME: 96}


def test_instructions_are_counted_without_what_fills_up_the_end(code):
    assert len(code.instructions) == 54
    assert code.instructions[-1].opcode == "EXIT"
    assert code.count("FADD") == 7


def test_memory_instructions_are_counted_by_kind_and_width(code):
    widths = (128, 64, 32, 16, 8)
    assert [code.count("LDG", width=width) for width in widths] == [1, 0, 1, 0, 0]
    assert [code.count(name) for name in ("STG", "LDS", "STS", "SHFL")] == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("opcode", "width"),
    [
        ("LDG.E.128.CONSTANT", 128),
        ("LDG.E.64", 64),
        ("LDG.E.CONSTANT", 32),
        ("LDG.E.U16.CONSTANT", 16),
        ("STG.E.U8", 8),
    ],
)
def test_the_width_of_an_access_is_in_its_opcode(sass, opcode, width):
    assert sass.Instruction(0, "", opcode, "R0").width == width


def addresses(instructions) -> list[int]:
    """Of some instructions."""
    return [found.address for found in instructions]


def test_loops_are_found_and_the_main_one_is_the_longest(code):
    turns = [addresses(code.turn(loop)) for loop in code.loops]
    assert turns == [[*range(0xF0, 0x1B0, 0x10)], [*range(0x220, 0x280, 0x10)]]
    assert code.main_loop == code.loops[0]


def test_a_loop_is_executed_as_often_as_told(code):
    once, often = code.executed([1, 1]), code.executed([5, 1])
    # one loop of the two, with what is before and behind it
    assert addresses(once) == [*range(0x00, 0x1C0, 0x10), *range(0x280, 0x360, 0x10)]
    assert len(often) == len(once) + 4 * 12


@pytest.mark.parametrize(
    ("turns", "inside", "message"),
    [
        ([3], {}, "expected loops = 1, got 2"),
        ([3, 1], {"points": 9}, "expected a loop over 9 points, got none"),
        ([3, 1], {"stores": 33}, "expected a loop over 33 stores, got none"),
    ],
)
def test_a_plan_that_does_not_fit_the_loops_is_an_error(code, turns, inside, message):
    with pytest.raises(ValueError, match=message):
        code.executed(turns, **inside)


FORKS = """
\t\tFunction : forks
        /*0000*/                   MOV R0, RZ ;              /* 0x0 */
        /*0010*/              @P0 BRA 0x60 ;                 /* 0x0 */
        /*0020*/              @!P1 LDG.E.128 R4, [R2.64] ;   /* 0x0 */
        /*0030*/                   FADD R4, R4, R4 ;         /* 0x0 */
        /*0040*/                   FADD R4, R4, R4 ;         /* 0x0 */
        /*0050*/                   BRA 0x70 ;                /* 0x0 */
        /*0060*/                   LDG.E.128 R4, [R2.64] ;   /* 0x0 */
        /*0070*/              @P2 BRA 0xa0 ;                 /* 0x0 */
        /*0080*/                   CALL.REL.NOINC 0xe0 ;     /* 0x0 */
        /*0090*/                   BRA 0xb0 ;                /* 0x0 */
        /*00a0*/                   MUFU.RCP R0, R0 ;         /* 0x0 */
        /*00b0*/                   SHFL.IDX PT, R0, R1, R2 ; /* 0x0 */
        /*00b4*/              @P5 BRA 0xb0 ;                 /* 0x0 */
        /*00b8*/              @P3 EXIT ;                     /* 0x0 */
        /*00c0*/                   BRA P4, 0x0 ;             /* 0x0 */
        /*00d0*/                   EXIT ;                    /* 0x0 */
        /*00e0*/                   RET.REL.NODEC R2 0x0 ;    /* 0x0 */
"""


def test_the_fast_case_loads_unguarded_and_calls_nothing(code_of):
    forks = code_of(FORKS, "forks")
    turn = [0x00, 0x10, 0x60, 0x70, 0xA0, 0xB0, 0xB4, 0xB8, 0xC0]
    assert addresses(forks.turn(forks.main_loop)) == turn


def test_the_loop_over_points_is_executed_in_each_turn_of_the_main_one(code_of):
    forks = code_of(FORKS, "forks")
    assert len(forks.executed([1], points=1)) == 9 + 1  # EXIT
    assert len(forks.executed([3], points=7)) == 3 * (9 + 6 * 2) + 1


CLEARING = """
\t\tFunction : clearing
        /*0000*/                   MOV R0, RZ ;
        /*0010*/                   STS.128 [R0], RZ ;
        /*0020*/                   STS.128 [R0+0x10], RZ ;
        /*0030*/              @P0 BRA 0x10 ;
        /*0040*/              @P1 BRA 0x70 ;
        /*0050*/                   REDG.E.ADD.F32 [R2.64], R4 ;
        /*0060*/                   REDG.E.ADD.F32 [R2.64], R4 ;
        /*0070*/                   LDS R1, [R0] ;
        /*0080*/              @P2 BRA 0x0 ;
        /*0090*/                   EXIT ;
"""


def test_shared_memory_is_cleared_in_each_turn_by_as_many_stores_as_told(code_of):
    clearing = code_of(CLEARING, "clearing")
    once = clearing.executed([1], stores=2)
    assert len(clearing.executed([1], stores=5)) == len(once) + 2 * 3
    assert len(clearing.executed([4], stores=5)) == 4 * (len(once) - 1 + 2 * 3) + 1


@pytest.mark.parametrize(("rare", "atomics"), [("CALL", 2), ("CALL|REDG", 0)])
def test_the_fast_case_of_a_kernel_avoids_what_is_rare_in_it(modules, code_of, rare, atomics):
    clearing = code_of(CLEARING, "clearing")
    executed = clearing.executed([1], stores=2, case=modules["sass_flow"].FastCase(rare=rare))
    assert [found.name for found in executed].count("REDG") == atomics


RARE_CASE = """
\t\tFunction : rare
        /*0000*/                   MOV R0, RZ ;
        /*0010*/              @P0 BRA 0x50 ;
        /*0020*/                   FADD R4, R4, R4 ;
        /*0030*/              @P1 BRA 0x0 ;
        /*0040*/                   EXIT ;
        /*0050*/                   MUFU.RCP R0, R0 ;
        /*0060*/                   BRA 0x20 ;
"""


def test_a_rare_case_behind_the_code_that_it_returns_to_is_no_loop(code_of):
    rare = code_of(RARE_CASE, "rare")
    (loop,) = rare.loops
    assert addresses(rare.turn(loop)) == [0x00, 0x10, 0x50, 0x60, 0x20, 0x30]


NESTED = """
\t\tFunction : nested
        /*0000*/                   MOV R0, RZ ;
        /*0010*/              @P0 BRA 0x40 ;
        /*0020*/                   FADD R4, R4, R4 ;
        /*0030*/                   BRA 0x10 ;
        /*0040*/              @P1 BRA 0x0 ;
        /*0050*/                   EXIT ;
"""


@pytest.mark.parametrize("leaves_to", ["0x40", "0x0"])
def test_a_loop_inside_that_is_left_at_its_head_is_gone_through_once(code_of, leaves_to):
    nested = code_of(NESTED.replace("@P0 BRA 0x40", f"@P0 BRA {leaves_to}"), "nested")
    (loop,) = nested.loops
    turn = addresses(nested.turn(loop))
    assert turn == [0x00, 0x10, 0x20, 0x30, *([0x40] if leaves_to == "0x40" else [])]


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "arch", "occupancy"),
    [
        (32, 256, 0, "90", 1.0),
        (64, 256, 0, "90", 0.5),
        (65, 256, 0, "90", 0.375),  # 72 registers are allotted
        (64, 256, 0, "86", 32 / 48),
        (32, 256, 100 * 1024, "90", 0.25),
        (255, 1024, 0, "90", 0.0),  # cannot be launched
        (32, None, 0, "90", None),
    ],
)
def test_occupancy_follows_the_scarcest_resource(
    modules, code, registers, threads, shared, arch, occupancy
):
    resources = modules["sass"].Resources(registers, 0, 0, 0, shared)
    kernel = modules["sass_report"].Kernel("sum", resources, threads, code)
    assert kernel.occupancy(arch) == occupancy


def test_the_bounds_follow_the_printed_formulas(modules, code):
    turn = code.turn(code.main_loop)
    found = modules["sass_times"].bounds(turn * 5, warps=3000)
    per_cycle = 132 * 1.98e9  # the highest clock, so that the bounds are bounds
    assert "clocks     = 132 * 1.98e9" in modules["sass_times"].PREDICTION
    assert found["issue"] == pytest.approx(3000 * 5 * 12 / (4 * per_cycle))
    assert found["integer"] == pytest.approx(3000 * 5 * 4 / (2 * per_cycle))
    assert found["load/store"] == pytest.approx(3000 * 5 * (4 + 1) / per_cycle)


def test_more_than_one_architecture_is_an_error_in_one_line(modules, monkeypatch):
    toolkit = SimpleNamespace(archs=("80", "90"))
    monkeypatch.setattr(modules["sass_report"], "read_toolkit", lambda strict: toolkit)
    monkeypatch.setattr(sys, "argv", ["sass_report.py", "--arch", "8.0 9.0"])
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "")  # main() sets it
    message = "sass_report: expected --arch = one architecture, got '8.0 9.0'"
    with pytest.raises(SystemExit, match=message):
        modules["sass_report"].main()


@pytest.fixture(scope="module")
def kernels(modules: dict[str, ModuleType]) -> list:
    """This project's kernels, compiled for the H200."""
    report = modules["sass_report"]
    with pytest.MonkeyPatch.context() as settings:
        settings.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
        try:
            toolkit = report.read_toolkit()
            report.find_cuobjdump(toolkit)
        except report.NoCudaError as reason:
            pytest.skip(f"no report of the compiler: {reason}")
    return report.compile_kernels(toolkit, "90")


@pytest.mark.slow
def test_no_kernel_spills_registers(kernels):
    spilled = {
        kernel.name: kernel.resources
        for kernel in kernels
        if kernel.resources.spill_stores or kernel.resources.spill_loads
    }
    assert spilled == {}


@pytest.mark.slow
def test_each_fast_path_loads_its_corners_in_16_bytes(kernels):
    fast = {
        kernel.name: kernel.code.turn(kernel.code.main_loop)
        for kernel in kernels
        if kernel.name.startswith("Vector")
    }
    names = [f"Vector{part}<{dtype}, 2>" for part in ("Forward", "Points") for dtype in DTYPES]
    assert set(names) <= set(fast)
    loads = {
        name: sum(found.name == "LDG" and found.width == 128 for found in turn)
        for name, turn in fast.items()
    }
    assert {name: count for name, count in loads.items() if count < 4 * 9} == {}


@pytest.mark.slow
def test_the_report_has_a_row_for_each_kernel_and_a_time_for_each_layer(
    modules, kernels, monkeypatch, tmp_path
):
    path = tmp_path / "report.md"
    monkeypatch.setattr(sys, "argv", ["sass_report.py", "--markdown", str(path)])
    monkeypatch.setattr(modules["sass_report"], "compile_kernels", lambda *_: kernels)
    modules["sass_report"].main()
    report = path.read_text()
    assert re.findall(r"^\| +`(.+)` \|", report, re.MULTILINE) == [k.name for k in kernels]
    assert "Compiled, not run." in report and "Predicted, never measured" in report
    for direction in ("forward", "backward"):
        rows = [
            row.split("|") for row in re.findall(rf"^\| *{direction}, .*$", report, re.MULTILINE)
        ]
        times = [row[3:7] for row in rows if len(row) == 8 and "=" not in row[3]]
        assert len(times) == (4 + 1) * 2  # stages and the wide layer, dtypes
        for kernels_us, memory_us, predicted_us, times_memory in (map(float, t) for t in times):
            assert kernels_us > 0 and predicted_us == max(kernels_us, memory_us)
            assert times_memory >= 1
        goals = [row for row in rows if "=" in row[3]]
        assert len(goals) == (9 if direction == "forward" else 10)  # one is in float16 alone
        for _, layer, dtype, goal, microseconds, floors, verdict, _ in goals:
            number, unit = goal.split()[1:]
            value = float(microseconds if unit == "us" else floors)
            assert verdict.strip() == ("met" if value <= float(number) else "missed"), layer
            assert (unit == "us") == (
                direction == "forward" and ("wide" in layer or "e 1" in layer)
            )
            assert "wide" not in layer or unit != "us" or dtype.strip() == "float16"
