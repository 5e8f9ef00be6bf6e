"""What the tests of segmentation share: tiny and trained segmentors."""

from __future__ import annotations

from tests.script_runs import (
    scope_fixture,
    signals_and_warnings_as_before,  # noqa: F401
    tiny_fixtures,
)
from tests.segmentation import tiny_segmentation_sets
from tests.trained_runs import trainings_begin  # noqa: F401

tiny_folder, trained = tiny_fixtures("segmentation", tiny_segmentation_sets)
default_scope = scope_fixture("mmseg")
