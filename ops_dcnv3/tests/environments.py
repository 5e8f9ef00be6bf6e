"""Environments of the processes that tests start."""

from __future__ import annotations

import os


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without the package's own variables, and with these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPS_DCNV3_")}
    return kept | variables
