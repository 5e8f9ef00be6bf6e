"""What must hold on a GPU: a table of plain functions that need neither pytest nor a network.

`test_gpu.py` runs the table under pytest, `python -m gpu_checks` without it (also under
compute-sanitizer), and `test_gpu_checks.py` proves on a CPU that the checks pass and can fail. The
operator is looked up in `ops_dcnv3` at each call, so that a test can put a wrong one there.
"""

from . import devices, hostile, layouts, memory, numerics, pytorch, repeats  # noqa: F401
from .table import CHECKS, Check, Outcome, Skip, run_check

__all__ = ["CHECKS", "Check", "Outcome", "Skip", "run_check"]
