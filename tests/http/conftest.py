"""
What tests of the HTTP side share.
"""

from __future__ import annotations

import pytest

from tests.http.service import Service


@pytest.fixture
def service() -> Service:
    return Service()
