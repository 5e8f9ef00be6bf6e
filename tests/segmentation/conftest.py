"""What the tests of segmentation share: tiny and trained segmentors."""

from __future__ import annotations

from tests.script_runs import signals_and_warnings_as_before, tiny_fixtures  # noqa: F401
from tests.segmentation import tiny_segmentation_sets
from tests.trained_runs import trainings_begin  # noqa: F401

tiny_folder, trained = tiny_fixtures("segmentation", tiny_segmentation_sets)
