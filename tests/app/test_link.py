"""
A worker's end of the channel to its supervisor, without the supervisor.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dcm_ws.app.link import Link
from dcm_ws.postgres.data_folder import EmbeddedError


@pytest_twisted.ensureDeferred
async def test_the_supervisor_ends_while_it_is_asked() -> None:
    """
    Where its embedded PostgreSQL is cannot be known any more, which is no other error than that of a database that
    cannot be used; and the worker ends.
    """
    drained: list[str] = []
    link = Link(
        1,
        2,
        Clock(),
        is_stopping=lambda: None,
        drain=lambda: drained.append("worker"),
        renew=lambda secrets, database: None,
    )
    link.channel.makeConnection(StringTransport())
    asked = [link.place(), link.place()]
    link.channel.connectionLost(Failure(ConnectionDone()))
    for place in (*asked, link.place()):
        with pytest.raises(EmbeddedError, match="the supervisor has ended"):
            await place
    assert drained == ["worker"]
