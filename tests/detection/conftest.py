"""What the tests of detection share: tiny and trained detectors."""

from __future__ import annotations

from tests.detection import tiny_coco
from tests.script_runs import (
    scope_fixture,
    signals_and_warnings_as_before,  # noqa: F401
    tiny_fixtures,
)
from tests.trained_runs import trainings_begin  # noqa: F401

tiny_folder, trained = tiny_fixtures("detection", tiny_coco)
default_scope = scope_fixture("mmdet")
