"""
The ids that the service gives.
"""

from __future__ import annotations

import pytest

from dcm_ws.core.ids import base36
from tests.fakes import WALL_MS


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (1, "1"), (35, "z"), (36, "10"), (WALL_MS, "lrq4coow")])
def test_base36(number: int, text: str) -> None:
    """
    Ids are written in digits and lower-case letters.
    """
    assert base36(number) == text
    assert int(text, 36) == number
