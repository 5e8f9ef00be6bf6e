"""torch.export and AOTInductor: a compiled package that calls the operator by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import internimage

LOAD = """
import sys, torch
import ops_dcnv3
model = torch._inductor.aoti_load_package(sys.argv[1])
cases = torch.load(sys.argv[2], weights_only=True)
print(max(float((model(x) - y).abs().max() / y.abs().max()) for x, y in cases))
"""


@pytest.mark.slow
@pytest.mark.inductor
def test_a_package_answers_in_another_process_for_any_batch_and_size(fill, tmp_path: Path):
    settings = {"channels": 16, "depths": (1,), "groups": (1,), "num_classes": 7}
    model = fill(internimage.InternImage(**settings)).eval()
    example = torch.randn(2, 3, 64, 32)
    batch = torch.export.Dim("batch", min=1, max=64)
    sizes = {0: batch, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=(sizes,))
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(tmp_path / "model.pt2"),
            # the host code alone; the kernels are compiled as ever
            inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},
        )
        images = [example, torch.randn(3, 3, 96, 64)]
        torch.save([(x, model(x)) for x in images], tmp_path / "cases.pt")
    command = [sys.executable, "-W", "ignore", "-c", LOAD, package, str(tmp_path / "cases.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1e-5
