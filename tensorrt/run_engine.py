"""Runs a TensorRT engine: on images, as a benchmark, or against ONNX Runtime.

    python tensorrt/run_engine.py X.engine IMAGE... [--output DIR] [--json]
    python tensorrt/run_engine.py X.engine --benchmark
    python tensorrt/run_engine.py X.engine --check X.onnx [IMAGE...]

Images are prepared and answers given as by ``internimage run``. The benchmark prints a row of the
table in tensorrt/README.md: images a second with the median latency of the network alone, and the
copies of inputs and outputs beside it.

Needs an NVIDIA GPU, the library that the engine was built with, and ``X.engine.json`` beside the
engine; no PyTorch. A mistake is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

# As in build_engine.py, which says why this does not hide NVIDIA's `tensorrt`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from comparison import SHORT, WHOLE, Comparison
from cuda_memory import open_cuda
from engine_files import EngineFacts, read_facts
from internimage.cli_arguments import positive
from internimage.runtime import Metadata, Run, model_of, open_session, parse_metadata
from internimage.runtime.command import add_answer_arguments, answer_images
from internimage.runtime.sessions import Arrays, with_unknown
from internimage.script import Parser, run_script
from latency import measure, random_inputs, row, table
from loaded_engine import Engine
from nvidia_runtime import RuntimeName, choose_runtime

NAME = "run_engine.py"
ITERATIONS = 200  # so that the slowest hundredth, p99, is more than one run


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(NAME, "Run a TensorRT engine on images, or time it.")
    parser.add_argument("engine", type=Path, metavar="X.engine")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image, or folder of images")
    add_answer_arguments(parser)
    parser.add_argument("--plugin", type=Path, metavar="LIB.so", help="as it was built with")
    parser.add_argument("--benchmark", action="store_true", help="print a row of the FPS table")
    parser.add_argument("--iterations", type=positive, help=f"of --benchmark, default {ITERATIONS}")
    parser.add_argument(
        "--check",
        type=Path,
        metavar="X.onnx",
        help="compare with ONNX Runtime on the CPU: on the images, or on random numbers",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help=f"of --check, over the largest value (default {WHOLE:g}, TF32 and half {SHORT:g})",
    )
    return parser


def warn_of_idle_flags(parsed: argparse.Namespace) -> None:
    """Say which flags have no effect, for want of the one that they belong to."""
    answers = {"output": None, "json": False, "topk": None, "score_threshold": None}
    for owner, has_owner, defaults in (
        ("IMAGE...", parsed.images, answers),
        ("--benchmark", parsed.benchmark, {"iterations": None}),
        ("--check", parsed.check, {"tolerance": None}),
    ):
        idle = [name for name, default in defaults.items() if getattr(parsed, name) != default]
        if idle and not has_owner:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
            warnings.warn(f"{flags} has no effect without {owner}", stacklevel=2)


def load(path: Path, facts: EngineFacts, plugin: Path | None) -> Engine:
    """Load an engine with the library that has built it.

    Raises:
        ImportError: that library is not installed.
        OSError: there is no GPU that can be used.
        ValueError: the engine needs a plugin, or the library refuses it.
    """
    if facts.needs_plugin and plugin is None:
        raise ValueError(f"expected --plugin LIB.so for {path}, which was built with one, got none")
    runtime = choose_runtime(cast(RuntimeName, facts.runtime))
    # Asked before CUDA is: a plan is read by the very version that wrote it, whatever the GPU.
    if runtime.module.__version__ != facts.version:
        raise ValueError(
            f"expected {facts.runtime} {facts.version}, which has built {path}, got "
            f"{runtime.module.__version__}: build it again here"
        )
    if plugin is not None and not facts.needs_plugin:
        warnings.warn(f"--plugin has no effect on {path}, which needs none", stacklevel=2)
        plugin = None
    cuda = open_cuda()
    if plugin is not None:
        runtime.load_plugin(plugin)
    return Engine(runtime, path, cuda)


def benchmark(
    engine: Engine, facts: EngineFacts, metadata: Metadata | None, iterations: int
) -> str:
    """Return a table with one row: the usual size of the engine's profile."""
    shapes = {name: engine.profile(name).usual for name in engine.inputs}
    inputs = random_inputs(shapes, engine.dtypes)
    precision = metadata.precision if metadata is not None else "?"
    types = "fp16 by TensorRT" if facts.typing == "fp16" else precision
    # TF32 rounds the factors of float32 products alone.
    if precision == "fp32" and facts.tf32:
        types += " (TF32)"
    image = inputs[engine.inputs[0]]
    resolution = (image.shape[2], image.shape[3])
    cells = row(
        measure(engine, inputs, iterations),
        model=metadata.model if metadata is not None else engine.path.stem,
        resolution=resolution,
        types=types,
        device=engine.cuda.device_name(),
    )
    return table([cells])


def compared(run: Run, model: Path, metadata: Metadata, comparison: Comparison) -> Run:
    """Return a run whose results ONNX Runtime has to have as well.

    Args:
        run: of the engine.
        model: the ONNX file that the engine was built from.
        metadata: of the model.
        comparison: takes the outputs of both.
    """
    reference = open_session(model, metadata)

    def both(inputs: Arrays) -> Arrays:
        found = run(inputs)
        comparison.add(found, reference(inputs), longest_side=max(inputs["input"].shape[2:]))
        return found

    return both


def tolerance_of(facts: EngineFacts, metadata: Metadata) -> float:
    """The difference to float32 that the types of an engine explain."""
    is_whole = metadata.precision == "fp32" and facts.typing == "strong" and not facts.tf32
    return WHOLE if is_whole else SHORT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    exit_code = 0

    def script() -> None:
        nonlocal exit_code
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a trace
        parsed = build_parser().parse_known(arguments)
        if not (parsed.images or parsed.benchmark or parsed.check):
            raise ValueError("expected IMAGE..., --benchmark or --check X.onnx, got none of them")
        if parsed.tolerance is not None and not parsed.tolerance > 0:
            raise ValueError(f"expected --tolerance > 0, got {parsed.tolerance:g}")
        warn_of_idle_flags(parsed)
        facts = read_facts(parsed.engine)
        metadata = (
            None
            if facts.metadata is None
            else parse_metadata(facts.metadata, origin=f"{parsed.engine}.json")
        )
        if metadata is None and (parsed.images or parsed.check):
            raise ValueError(
                f"expected an engine of a model that `internimage export` has written, got "
                f"{parsed.engine} without its metadata: only --benchmark works"
            )
        engine = load(parsed.engine, facts, parsed.plugin)
        shapes = {name: engine.profile(name).usual for name in engine.inputs}
        # With --json standard output is one JSON text.
        notes = sys.stderr if parsed.json else sys.stdout
        if parsed.benchmark:
            print(benchmark(engine, facts, metadata, parsed.iterations or ITERATIONS), file=notes)
        if metadata is None or not (parsed.images or parsed.check):
            return
        run: Run = lambda inputs: engine.run(with_unknown(inputs, shapes))  # noqa: E731
        comparison = Comparison(
            tolerance_of(facts, metadata) if parsed.tolerance is None else parsed.tolerance
        )
        if parsed.check:
            run = compared(run, parsed.check, metadata, comparison)
        if parsed.images:
            model = model_of(metadata, run)
            exit_code = answer_images(model, parsed, program=NAME, head=str(parsed.engine))
        else:
            run(random_inputs(shapes, engine.dtypes))
        if parsed.check:
            print("\n".join(comparison.lines), file=notes)
            comparison.check()

    advice = "an engine with a smaller profile needs less"
    return run_script(NAME, script, memory_advice=advice) or exit_code


if __name__ == "__main__":
    sys.exit(main())
