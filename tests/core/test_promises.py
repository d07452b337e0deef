"""
Whatever publishers, clients, agents, networks and retention do: what the protocol promises is kept.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings

from tests.core.promises.operations import Operation, operations, play
from tests.core.promises.operations import settings as choices

COURSES = int(os.environ.get("DCM_WS_TEST_COURSES", "60"))
# seconds: some hundreds of courses take longer than other tests may
pytestmark = pytest.mark.timeout(max(120, 2 * COURSES))


@settings(max_examples=COURSES, database=None, report_multiple_bugs=False)
@given(choices, operations)
def test_promises_are_kept(chosen: dict[str, Any], todo: list[Operation]) -> None:
    """
    What was acknowledged to a publisher is applied, or a gap is told; and nothing else comes that may not.
    """
    play(chosen, todo)
