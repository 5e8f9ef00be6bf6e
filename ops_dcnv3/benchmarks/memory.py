"""Peak memory of one call, in a process of its own: see `probe`; `bench_dcnv3.py` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from competitors import original_path
from measure import Effort, Table, judge, peak_extra_bytes
from workloads import SETTINGS, STAGES, Shape, forward_only, normalised

import ops_dcnv3


def table_memory(effort: Effort, threads: int) -> Iterator[Table]:
    """Peak resident memory beyond the arguments, each figure from a new process."""
    columns = ["shape", "pass", "results MiB", "original MiB", "ours MiB", "goal", "verdict"]
    table = Table(f"peak extra memory, float32, {threads} thread(s)", columns)
    table.note = (
        "The system's high-water mark (VmHWM) over the resident memory before the call. Results: "
        "the output for the forward pass, the three gradients for the backward pass. The goal: the "
        "results, backward also two planes of one group a thread, and 1 MiB for all else."
    )
    mib = 2**20
    for image_size, batch in SETTINGS[1:]:
        for stage in range(len(STAGES)):
            for direction in ("forward", "backward"):
                found = {}
                for path in ("ours", "original"):
                    probed = json.dumps([image_size, batch, stage, direction, path])
                    command = [sys.executable, __file__, str(threads), probed]
                    # with a fixed threshold, freed blocks go back to the system at once
                    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
                    printed = subprocess.run(
                        command, env=env, check=True, stdout=subprocess.PIPE, text=True
                    ).stdout
                    found[path] = json.loads(printed.splitlines()[-1])
                shape = Shape(image_size, batch, stage)
                ours, results = found["ours"]["extra"] / mib, found["ours"]["results"] / mib
                buffers = threads * shape.plane_bytes / mib if direction == "backward" else 0
                cells = (results, found["original"]["extra"] / mib, ours)
                table.add(
                    shape, direction, *cells, *judge(ours, results + buffers + 1, at_most=True)
                )
    yield table


def probe(image_size: str, batch: int, stage: int, direction: str, path: str) -> None:
    """Print the peak of one call in this process, as JSON: extra and results, in bytes."""
    operation = {"ours": ops_dcnv3.dcnv3, "original": original_path}[path]

    def prepare(shape: Shape) -> tuple[Callable[[], object], int]:
        image, offset, logits = shape.tensors()
        leaves = [image, offset, normalised(logits, shape.groups)]
        run = partial(operation, groups=shape.groups)
        if direction == "forward":
            return forward_only(run, *leaves), image.nbytes
        leaves = [leaf.requires_grad_() for leaf in leaves]
        output = run(*leaves)
        upstream = torch.randn_like(output)
        gradients = partial(torch.autograd.grad, output, leaves, upstream)
        return gradients, sum(leaf.nbytes for leaf in leaves)

    prepare(Shape("224 px", 1, 3))[0]()  # loads libraries and starts threads
    run, results = prepare(Shape(image_size, batch, stage))
    print(json.dumps({"extra": peak_extra_bytes(run), "results": results}))


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    probe(*json.loads(sys.argv[2]))
