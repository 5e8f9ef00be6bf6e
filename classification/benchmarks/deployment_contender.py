"""The process of one contender of ``bench_deployment.py``."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], np.ndarray]


def eager(folder: Path, image: np.ndarray, threads: int) -> Run:
    """PyTorch, on the operator that the environment asks for."""
    import torch

    import internimage

    torch.set_num_threads(threads)
    saved = torch.load(folder / "model.pt", weights_only=True)
    model = internimage.create_model(saved["name"]).eval()
    model.load_state_dict(saved["weights"])
    tensor = torch.from_numpy(image)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model(tensor).numpy()

    return run


def ahead_of_time(folder: Path, image: np.ndarray, threads: int) -> Run:
    """What AOTInductor compiled."""
    import torch

    import ops_dcnv3  # noqa: F401  (the package calls its operator by name)

    torch.set_num_threads(threads)
    model = torch._inductor.aoti_load_package(str(folder / "model.pt2"))
    tensor = torch.from_numpy(image)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model(tensor).numpy()

    return run


def onnxruntime(path: Path, image: np.ndarray, threads: int, library: Path | None) -> Run:
    """ONNX Runtime; the operator's nodes need their library."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait for work would take the core of whoever has the next turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": image})[0]


def openvino(folder: Path, image: np.ndarray, threads: int) -> Run:
    """OpenVINO, in float32 whatever the processor has."""
    import openvino

    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(folder / "grid_sample.onnx", "CPU", settings)
    return lambda: model([image])[0]


def prepare(args: argparse.Namespace, image: np.ndarray) -> Run:
    """Returns the contender's pass."""
    if args.name in ("reference", "native"):
        return eager(args.folder, image, args.threads)
    if args.name == "aot":
        return ahead_of_time(args.folder, image, args.threads)
    if args.name == "openvino":
        return openvino(args.folder, image, args.threads)
    form, library = "node", args.library
    if args.name == "onnxruntime_node":
        from ops_dcnv3.onnxruntime import library_path

        library = library_path()
    elif args.name != "onnxruntime_library":
        form, library = ("half" if args.name == "onnxruntime_half" else "grid_sample"), None
    return onnxruntime(args.folder / f"{form}.onnx", image, args.threads, library)


def measure(run: Run, passes: int) -> dict[str, float]:
    """Returns the median pass of a turn; one more warms up."""
    run()
    walls, cpus = [], []
    for _ in range(passes):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}


def main() -> None:
    """Answers every line of the input with one of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--passes", type=int, required=True)
    parser.add_argument("--library", type=Path)
    args = parser.parse_args()
    image = np.load(args.folder / "input.npy")
    expected = np.load(args.folder / "expected.npy")
    run = prepare(args, image)
    for line in sys.stdin:
        if line.strip() == "pass":
            answer = measure(run, args.passes)
        else:
            apart = np.abs(run().astype(np.float64) - expected).max() / np.abs(expected).max()
            answer = {"difference": float(apart)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
