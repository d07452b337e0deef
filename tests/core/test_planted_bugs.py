"""
The courses of events find bugs: those that are quickest to find, since each takes many courses.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.promises.crash_bugs import BUGS as CRASH_BUGS
from tests.core.promises.crash_bugs import courses_until_found as courses_until_crash
from tests.core.promises.planted import BUGS, courses_until_found

QUICK = ("dropped_at_limit", "no_mirror", "never_full")
QUICK_CRASHES = (
    "owed_forgotten",
    "waiting_forgotten",
    "sent_too_far",
    "put_back_over",
    "places_not_loaded",
    "nobody_left",
)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug[2].__name__ in QUICK], ids=lambda bug: bug[2].__name__)
def test_bug_is_found(bug: tuple[type, str, Any]) -> None:
    """
    A bug in the core breaks a promise within some courses.
    """
    assert courses_until_found(*bug, 200) is not None


@pytest.mark.parametrize(
    "bug", [bug for bug in CRASH_BUGS if bug[2].__name__ in QUICK_CRASHES], ids=lambda bug: bug[2].__name__
)
def test_bug_that_loses_something_in_a_crash_is_found(bug: tuple[Any, str, Any]) -> None:
    assert courses_until_crash(*bug, 200) is not None
