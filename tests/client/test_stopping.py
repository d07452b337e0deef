"""
Clients for Twisted that are closed while they connect.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock
from zope.interface import alsoProvides, implementer

from dcm_ws.client.tx import DCMClient


@implementer(IHostResolution)
class Resolution:
    """
    A look-up that takes its time, and ends without an address when it is cancelled, as that of Twisted does.
    """

    def __init__(self, name: str, receiver: Any) -> None:
        self.name = name
        self._receiver = receiver

    def cancel(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IHostnameResolver)
class Resolver:
    def resolveHostName(self, receiver: Any, name: str, *args: Any, **more: Any) -> Resolution:  # type: ignore[override]
        resolution = Resolution(name, receiver)
        receiver.resolutionBegan(resolution)
        return resolution


def test_closed_while_the_host_is_looked_up() -> None:
    """
    A client that is closed before it knows the address of the host does not say that there is no such host.
    """
    reactor: Any = MemoryReactorClock()
    alsoProvides(reactor, IReactorPluggableNameResolver)
    reactor.nameResolver = Resolver()
    client = DCMClient("ws://dcm.example:3849/", reactor=reactor)
    client.startService()
    client.stopService()
    assert client.last_close is None
