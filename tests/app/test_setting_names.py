"""
Which setting was probably meant by a name that none has.
"""

from __future__ import annotations

import pytest

from dcm_ws.app.setting_names import nearest_setting


@pytest.mark.parametrize(
    "name,near",
    [
        ("port", "ws-port"),
        ("prot", "ws-port"),
        ("databse", "database-url"),
        ("database", "database-url"),
        ("databse-url", "database-url"),
        ("max_conections", "max-connections"),
        ("zzz", None),
    ],
)
def test_nearest_setting(name: str, near: str | None) -> None:
    """
    A setting is meant by a word of its name, too, and rather by the first one.
    """
    assert nearest_setting(name, ["no-database", "database-url", "ws-port", "max-connections", "host"]) == near
