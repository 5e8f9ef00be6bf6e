"""What the tests of detection share: tiny and trained detectors."""

from __future__ import annotations

from tests.detection.script_fixtures import tiny_folder, trained  # noqa: F401
from tests.script_runs import signals_and_warnings_as_before  # noqa: F401
from tests.trained_runs import trainings_begin  # noqa: F401
