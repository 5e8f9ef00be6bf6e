"""The GPU, the driver and the versions that a record needs to mean anything."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess

import torch
from measure import describe_machine

import ops_dcnv3


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
            f"nvcc: {nvcc_release()}",
        ]
    packages = ("triton", "torchvision", "timm", "DCNv4", "numpy")
    lines.append("- " + ", ".join(f"{name} {version_of(name)}" for name in packages))
    lines.append(f"- backends: {', '.join(ops_dcnv3.extension_info()['backends'])}")
    return "\n".join([*lines, describe_machine(torch.get_num_threads())])


def nvcc_release() -> str:
    """As `nvcc --version` words it, or that there is none."""
    from original_design import find_nvcc

    nvcc = find_nvcc()
    if nvcc is None:
        return "not found"
    printed = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    releases = [line for line in printed.splitlines() if "release" in line]
    return releases[0].strip() if releases else "unknown"
