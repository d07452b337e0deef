"""
The courses of events find bugs: those that are quickest to find, since each takes many courses.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.promises.planted import BUGS, courses_until_found

QUICK = ("dropped_at_limit", "no_mirror", "never_full")


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug[2].__name__ in QUICK], ids=lambda bug: bug[2].__name__)
def test_bug_is_found(bug: tuple[type, str, Any]) -> None:
    """
    A bug in the core breaks a promise within some courses.
    """
    assert courses_until_found(*bug, 200) is not None
