"""
Revoked tokens in the database.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed

from dcm_ws.brokers.stored_revocations import StoredRevocations
from dcm_ws.postgres.connection import Place
from tests.integration.databases import UNREACHABLE

pytestmark = pytest.mark.integration


class OpenLog:
    """
    A log that is in a database.
    """

    is_open = True
    in_memory = False
    epoch = "abcdefgh"


@pytest_twisted.ensureDeferred
async def test_the_database_is_away() -> None:
    """
    If the database cannot be reached, a revocation is not written, and neither that nor a look is a failure of the
    service.
    """
    from twisted.internet import reactor

    loaded: list[Any] = []
    log: Any = OpenLog()
    revocations = StoredRevocations(
        reactor,
        lambda: succeed(Place(UNREACHABLE)),
        log,
        loaded.append,
        now=lambda: 0.0,
        wall_ms=lambda: 0,
        shared=True,
    )
    revocations.startService()
    try:
        revocations.look()
        written: Deferred[bool] = Deferred()
        revocations.save("ann", 1, written.callback)
        assert await written is False
        assert loaded == []
    finally:
        revocations.stopService()
