"""
What schemathesis has to know of the HTTP calls.
"""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """
    An event stream has no end, so that it is read as a long poll.
    """
    if case.query and case.query.get("live") == "sse":
        case.query["live"] = "long-poll"
