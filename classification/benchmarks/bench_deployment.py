r"""One model in PyTorch, ONNX Runtime and OpenVINO on a CPU, in turns; and the operator's layers.

    .venv/bin/python classification/benchmarks/bench_deployment.py
    .venv/bin/python classification/benchmarks/bench_deployment.py --only native onnxruntime

Exports the model in both forms, compiles it with AOTInductor, and gives each contender a process of
its own; they take turns, as ``tools/benchmarks/turns.py`` says. All have the same weights, input
and number of threads; beside its time stands how far a contender's answer is from PyTorch's.
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmarks.turns import Worker, processor

TITLES = {
    "reference": "PyTorch, operator in plain PyTorch",
    "native": "PyTorch, compiled operator",
    "aot": "AOTInductor, compiled operator",
    "onnxruntime": "ONNX Runtime, GridSample form",
    "onnxruntime_node": "ONNX Runtime, compiled operator",
    "onnxruntime_library": "ONNX Runtime, compiled operator (CMake's library)",
    "onnxruntime_half": "ONNX Runtime, GridSample form, half",
    "openvino": "OpenVINO, GridSample form",
}
YARDSTICK = "onnxruntime"
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "onnxscript", "numpy")


def start(name: str, args: argparse.Namespace, folder: Path) -> Worker:
    """Starts the process of a contender."""
    command = [
        str(Path(__file__).with_name("deployment_contender.py")),
        *(name, str(folder), "--threads", str(args.threads), "--passes", str(args.passes)),
    ]
    if name == "onnxruntime_library":
        command += ["--library", str(args.library)]
    backend = "reference" if name == "reference" else "auto"
    return Worker(command, args.threads, OPS_DCNV3_BACKEND=backend)


def in_turns(
    names: Sequence[str], args: argparse.Namespace, folder: Path
) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
    """Returns the passes of each contender, and its difference to PyTorch."""
    workers = {name: start(name, args, folder) for name in names}
    differences = {name: worker.ask("difference")["difference"] for name, worker in workers.items()}
    passes: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name, worker in workers.items():
            passes[name].append(worker.ask("pass"))
    for worker in workers.values():
        worker.close()
    return passes, differences


def print_models(
    passes: dict[str, list[dict[str, float]]], differences: dict[str, float], yardstick: str
) -> None:
    """Prints the table of the whole model."""
    print(
        "| what runs it | ms an image | CPU ms | images/s | times as fast as "
        f"{TITLES[yardstick]} | lowest | highest | difference to PyTorch |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name, own in passes.items():
        wall, cpu = (1e3 * statistics.median(one[key] for one in own) for key in ("wall", "cpu"))
        ratios = [
            other["wall"] / one["wall"] for one, other in zip(own, passes[yardstick], strict=True)
        ]
        print(
            f"| {TITLES[name]} | {wall:.1f} | {cpu:.0f} | {1e3 / wall:.1f} | "
            f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} | "
            f"{differences[name]:.1e} |"
        )


def print_files(reports: dict[str, Any]) -> None:
    """Prints what the exported files hold."""
    print("\n| file | nodes | transposes | GridSample | DCNv3Packed | MiB |")
    print("|---|---:|---:|---:|---:|---:|")
    for form, report in reports.items():
        counts = report.nodes
        print(
            f"| {form} | {counts.total()} | {report.transposes} | {counts['GridSample']} | "
            f"{counts['DCNv3Packed']} | {report.size / 2**20:.0f} |"
        )


def print_layers(layers: Sequence[dict[str, Any]]) -> None:
    """Prints the table of the operator's layers."""
    print(
        "\n| layer, N x H x W x C, groups | GridSample form, ms | compiled operator, ms | ratio |\n"
        "|---|---:|---:|---:|"
    )
    for one in layers:
        slow, fast = one["grid_sample"], one["node"]
        print(f"| {one['layer']} | {1e3 * slow:.3f} | {1e3 * fast:.3f} | {one['ratio']:.1f} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports, measures and prints the tables."""
    parser = argparse.ArgumentParser(description="One model in several runtimes on a CPU.")
    parser.add_argument("--model", default="internimage_t")
    parser.add_argument("--size", type=int, default=None, help="pixels; default: the model's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--passes", type=int, default=5, help="a turn, of which the median counts")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), help="these contenders")
    parser.add_argument(
        "--library", type=Path, help="CMake's library of ops_dcnv3/onnxruntime_library"
    )
    args = parser.parse_args(arguments)
    names = args.only or [name for name in TITLES if name != "onnxruntime_library" or args.library]
    if "onnxruntime_library" in names and not args.library:
        parser.error("onnxruntime_library needs --library")

    # OpenMP reads it once
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    from classification.benchmarks.deployment_files import time_layers, write_files

    with tempfile.TemporaryDirectory() as folder:
        size, reports = write_files(args.model, args.size, Path(folder), aot="aot" in names)
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
        print(
            f"{processor()}, {os.cpu_count()} logical cores; Python {platform.python_version()}, "
            f"{versions}.\n\n{args.model}, one image of {size}x{size}, float32, {args.threads} "
            f"thread(s), {args.rounds} rounds of {args.passes} passes.\n",
            flush=True,
        )
        passes, differences = in_turns(names, args, Path(folder))
        print_models(passes, differences, YARDSTICK if YARDSTICK in names else names[0])
        print_files(reports)
        print_layers(time_layers(args.model, size, Path(folder), args.threads, args.rounds))


if __name__ == "__main__":
    main()
