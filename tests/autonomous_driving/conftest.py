"""What the tests of driving share: the scope of the registries, the trained models."""

from __future__ import annotations

from tests.script_runs import (
    scope_fixture,
    signals_and_warnings_as_before,  # noqa: F401
)
from tests.trained_runs import trainings_begin  # noqa: F401

default_scope = scope_fixture("mmdet")
