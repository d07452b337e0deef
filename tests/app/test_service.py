"""
The life of the service, on a reactor in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from dcm_ws.app.build import make_service
from dcm_ws.app.errors import StartError
from dcm_ws.app.service import DCMService
from dcm_ws.app.settings import Settings, SettingsError
from dcm_ws.core.session import Origin
from dcm_ws.protocol.errors import CloseCode
from tests.fakes import RecordingPeer

LISTEN = ("tcp:3849:interface=127.0.0.1", "tcp:3850:interface=127.0.0.1")


class Reactor(MemoryReactorClock):
    """
    A reactor that cannot listen on some ports.
    """

    def __init__(self, *taken: int) -> None:
        super().__init__()
        self.taken = taken

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        call(*arguments)

    def listenTCP(self, port: int, *arguments: Any, **named: Any) -> Any:
        if port in self.taken:
            raise CannotListenError("127.0.0.1", port, OSError("in use"))
        return super().listenTCP(port, *arguments, **named)


def start(reactor: Reactor, **settings: Any) -> tuple[DCMService, list[object]]:
    """
    A service that has been started, and what came of C{ready}.
    """
    service = make_service(Settings(listen=LISTEN, **settings), reactor)
    outcome: list[object] = []
    service.ready.addBoth(outcome.append)
    service.startService()
    return service, outcome


def test_ready() -> None:
    """
    A service without a database is ready once it listens, on its ports in their order and then on those of operators.
    """
    reactor = Reactor()
    service, outcome = start(reactor, admin_listen=("tcp:3851:interface=127.0.0.1",))
    assert outcome == [service]
    assert [server[0] for server in reactor.tcpServers] == [3849, 3850, 3851]
    assert len(service.ports) == 3
    factories = [server[1] for server in reactor.tcpServers]
    assert factories[0] is factories[1]
    assert factories[2] is not factories[0]


def test_port_in_use() -> None:
    """
    A service that cannot listen is never ready, and says in one line why.
    """
    service, outcome = start(Reactor(3850))
    assert isinstance(outcome[0], Failure)
    assert outcome[0].check(StartError)
    assert str(outcome[0].value) == f"cannot listen on {LISTEN[1]}: in use"
    assert len(service.ports) == 1
    assert not service.running


@pytest.mark.parametrize(("clients", "seconds"), [(10, 0.05), (100, 0.1), (1000, 0.5)])
def test_drain(clients: int, seconds: float) -> None:
    """
    The connections are closed a thousand a second, and within the drain time.
    """
    reactor = Reactor()
    service, _ = start(reactor, drain=0.5)
    peers = [RecordingPeer() for _ in range(clients)]
    for peer in peers:
        service._hub.connect(peer, Origin())
    stopped: list[None] = []
    service.stopService().addCallback(stopped.append)
    assert service._hub.draining
    assert sum(peer.closed is not None for peer in peers) == pytest.approx(clients / (seconds / 0.05), abs=1)
    reactor.pump([0.05] * round(seconds / 0.05))
    assert all(peer.closed is not None for peer in peers)
    assert stopped == [None]
    assert not service.running


def test_drain_of_a_node() -> None:
    """
    A node of a cluster closes its clients more slowly, since others have to take them.
    """
    reactor = Reactor()
    service, _ = start(reactor, drain=0.5)
    # a real one would connect to its database
    service._settings = replace(service._settings, cluster=True, database="postgresql://localhost/x")
    peers = [RecordingPeer() for _ in range(20)]
    for peer in peers:
        service._hub.connect(peer, Origin())
    service.stopService()
    assert sum(peer.closed is not None for peer in peers) == 5
    reactor.pump([0.05] * 3)
    assert all(peer.closed is not None for peer in peers)


def delayed(seconds: float, **settings: Any) -> tuple[Reactor, DCMService, RecordingPeer, list[None]]:
    """
    A service with a drain delay that stops, one of its clients, and what came of the stop.
    """
    reactor = Reactor()
    service, _ = start(reactor, drain_delay=seconds, **settings)
    peer = RecordingPeer()
    service._hub.connect(peer, Origin())
    stopped: list[None] = []
    service.stopService().addCallback(stopped.append)
    return reactor, service, peer, stopped


def test_drain_delay() -> None:
    """
    Load balancers learn at once that the service is about to stop.  Clients do not notice before the delay has passed.
    """
    reactor, service, peer, stopped = delayed(3)
    assert service._hub.draining
    late = RecordingPeer()
    service._hub.connect(late, Origin())
    reactor.advance(2.9)
    assert [message["type"] for message in peer.take()] == ["connected"]
    assert (peer.closed, late.closed) == (None, None)
    reactor.advance(0.1)
    reactor.pump([0.05] * 3)
    assert (peer.closed, late.closed) == (CloseCode.RESTART, CloseCode.RESTART)
    assert stopped == [None]
    assert not service.delay.skip()


def test_drain_delay_is_skipped() -> None:
    """
    It can be skipped once; who asks again wants something else.
    """
    reactor, service, peer, stopped = delayed(60)
    assert service.delay.skip()
    assert not service.delay.skip()
    reactor.pump([0.05] * 3)
    assert peer.closed is CloseCode.RESTART
    assert stopped == [None]


def test_drain_delay_is_skipped_before_it_begins() -> None:
    """
    The second signal may come before the first one has had its effect.
    """
    reactor = Reactor()
    service, _ = start(reactor, drain_delay=60)
    assert service.delay.skip()
    stopped: list[None] = []
    service.stopService().addCallback(stopped.append)
    reactor.pump([0.05] * 3)
    assert stopped == [None]


def test_no_delay_before_it_is_ready() -> None:
    """
    Nobody has sent clients to a service that was never ready.
    """
    service, outcome = start(Reactor(3850), drain_delay=60)
    assert isinstance(outcome[0], Failure)
    outcome.clear()
    stopped: list[None] = []
    service.stopService().addCallback(stopped.append)
    assert stopped == [None]


def test_new_secrets() -> None:
    """
    Other secrets hold from then on; another database means nothing to a service that has none.
    """
    service, _ = start(Reactor())
    service.use_secrets(["a", "b"])
    assert service._identity.secrets == ("a", "b")
    service.use_database("postgresql://localhost/x")
    service.use_database(None)


def test_application_has_no_workers() -> None:
    """
    An application that embeds the service cannot have workers, and an error says so.
    """
    with pytest.raises(SettingsError, match="an application cannot have workers"):
        make_service(Settings(workers=2), Reactor())
