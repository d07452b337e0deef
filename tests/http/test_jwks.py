"""
Where the keys of tokens may come from.
"""

from __future__ import annotations

import pytest

from dcm_ws.http.jwks import check_source


@pytest.mark.parametrize(
    "source",
    [
        "keys.json",
        "https://login.example.com/jwks",
        "http://127.0.0.1:8080/jwks",
        "http://[::1]/jwks",
        "http://localhost/jwks",
    ],
)
def test_sources(source: str) -> None:
    """
    Keys come from a file, over https, or from this machine.
    """
    check_source(source)


@pytest.mark.parametrize(
    "source",
    [
        "http://192.0.2.1/jwks",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "http://2130706433/",
        "http:///jwks",
        "https:///jwks",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
    ],
)
def test_sources_that_anybody_may_change(source: str) -> None:
    """
    Whatever others could answer for is refused.
    """
    with pytest.raises(ValueError, match="must be a file or an https URL"):
        check_source(source)


def test_passwords() -> None:
    """
    A URL with a password is refused, since the log shows URLs; the refusal does not show it.
    """
    with pytest.raises(ValueError, match="without a user and a password") as refused:
        check_source("https://user:sesame@example.com/")
    assert "sesame" not in str(refused.value)
