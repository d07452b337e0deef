"""
How many examples Hypothesis tries: few before a change may land, and many at night (C{scripts/nightly}).
"""

from __future__ import annotations

import os

NIGHTLY = os.environ.get("DCM_WS_TEST_PROFILE") == "nightly"


def examples(usual: int) -> int:
    """
    The number of examples in the place of C{usual} ones.
    """
    if NIGHTLY:
        return 20 * usual
    return usual // 4 if os.environ.get("CI") else usual
