"""What the tests of segmentation share: tiny and trained segmentors."""

from __future__ import annotations

from tests.script_runs import signals_and_warnings_as_before  # noqa: F401
from tests.segmentation.script_fixtures import tiny_folder, trained  # noqa: F401
from tests.trained_runs import trainings_begin  # noqa: F401
