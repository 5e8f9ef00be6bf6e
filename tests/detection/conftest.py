"""What the tests of detection share: tiny and trained detectors."""

from __future__ import annotations

from tests.detection import tiny_coco
from tests.script_runs import signals_and_warnings_as_before, tiny_fixtures  # noqa: F401
from tests.trained_runs import trainings_begin  # noqa: F401

tiny_folder, trained = tiny_fixtures("detection", tiny_coco)
