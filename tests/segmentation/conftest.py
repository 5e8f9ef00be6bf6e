"""A tiny segmentor that is trained once, for all tests that need one."""

from __future__ import annotations

from tests.script_runs import signals_and_warnings_as_before  # noqa: F401
from tests.segmentation.script_fixtures import tiny_folder, trained  # noqa: F401
