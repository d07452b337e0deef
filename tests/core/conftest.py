"""
What tests of the core get.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from tests.fakes import Client, make_core


@pytest.fixture
def core(clock: Clock) -> Core:
    """
    The core as in development.
    """
    return make_core(clock)


@pytest.fixture
def client(core: Core) -> Client:
    """
    A client that has connected, and done nothing else.
    """
    client = Client(core)
    client.peer.take()
    return client
