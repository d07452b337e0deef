"""
Whatever happens, and whenever the service crashes: agents that acknowledge events get all of them.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings

from tests.core.promises.crashes import Operation, operations, pending, play

COURSES = int(os.environ.get("DCM_WS_TEST_COURSES", "100"))
# seconds: some hundreds of courses take longer than other tests may
pytestmark = pytest.mark.timeout(max(120, 2 * COURSES))


@settings(max_examples=COURSES, database=None, report_multiple_bugs=False, deadline=None)
@given(pending, operations)
def test_nothing_is_lost_in_a_crash(max_pending: int, todo: list[Operation]) -> None:
    """
    What came after a subscription was written comes again until it is acknowledged, in order; what was acknowledged
    before the last flush does not.
    """
    play(max_pending, todo)
