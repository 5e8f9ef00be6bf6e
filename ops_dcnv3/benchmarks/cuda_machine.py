"""The GPU, the driver and the versions that a record needs to mean anything."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from measure import describe_machine

import ops_dcnv3

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cuda_toolkit import NoCudaError, describe_nvcc, find_nvcc  # noqa: E402


def first_line(*command: str) -> str:
    """What a program prints first, or why it prints nothing."""
    if shutil.which(command[0]) is None:
        return "not found"
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else f"exit status {done.returncode}"


def version_of(distribution: str) -> str:
    """The installed version of a distribution, or "absent"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def describe_gpu(device: torch.device) -> str:
    """The lines of a record about the machine; on a CPU those of the CPU alone."""
    lines = []
    if device.type == "cuda":
        p = torch.cuda.get_device_properties(device)
        cache = getattr(p, "L2_cache_size", 0) / 2**20
        smi = "name,driver_version,clocks.max.sm,clocks.max.mem,power.limit"
        lines += [
            f"- GPU: {p.name}, compute capability {p.major}.{p.minor}, "
            f"{p.multi_processor_count} multiprocessors, {p.total_memory / 2**30:.0f} GiB, "
            f"L2 {cache:.0f} MiB",
            f"- nvidia-smi ({smi}): "
            + first_line("nvidia-smi", f"--query-gpu={smi}", "--format=csv,noheader"),
            f"- CUDA of PyTorch {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
            f"nvcc {release_of_nvcc()}",
        ]
    packages = ("triton", "torchvision", "timm", "DCNv4", "numpy")
    lines.append("- " + ", ".join(f"{name} {version_of(name)}" for name in packages))
    lines.append(f"- backends: {', '.join(ops_dcnv3.extension_info()['backends'])}")
    return "\n".join([*lines, describe_machine(torch.get_num_threads())])


def release_of_nvcc() -> str:
    """As "13.0", or why there is none."""
    try:
        return describe_nvcc(find_nvcc())[0]
    except NoCudaError as reason:
        return f"unknown ({reason})"
