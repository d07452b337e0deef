"""
Clients connect and leave, and sweeps check them.
"""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import GLOBAL
from dcm_ws.protocol.errors import CloseCode
from tests.core.clients import TASK, joined, joined_again, stats, texts, token
from tests.core.living import events, finish, live
from tests.event_types import fits
from tests.fakes import WALL_MS, Client, RecordingPeer, make_core

# connecting


def test_connected_comes_first(core: Core) -> None:
    """
    The first frame tells the client who it is, and to whom it speaks.
    """
    (connected,) = Client(core).peer.take()

    assert connected == {
        "type": "connected",
        "client_id": connected["client_id"],
        "timestamp": WALL_MS,
        "authenticated": False,
        "server": "dcm-ws/test",
        "epoch": "epoch",
        "pos": 0,
    }
    assert re.fullmatch("ws_[0-9a-z]+_[0-9a-z]{6,}", connected["client_id"])
    assert int(connected["client_id"].split("_")[1], 36) == WALL_MS


def test_client_ids_are_unique(core: Core) -> None:
    """
    No two clients of a server are called alike.
    """
    assert len({Client(core).session.client_id for _ in range(100)}) == 100


def test_client_hears_global_without_asking(core: Core) -> None:
    """
    In development every client is subscribed to C{global} from the start.
    """
    client = Client(core)
    client.peer.take()
    core.router.announce(GLOBAL, "system.info", {})

    assert events(client.peer.take()) == [("global", "system.info")]


@pytest.mark.parametrize("origin", [Origin(), Origin("ann"), Origin("ann", "s")])
def test_claiming_an_agent_tells_nobody(core: Core, origin: Origin) -> None:
    """
    A client that only claims an agent causes no events, and is subscribed to nothing more.
    """
    watcher = Client(core)
    watcher.peer.take()
    client = Client(core, origin)
    client.leave()

    assert watcher.peer.take() == []
    assert stats(core)["channelStats"] == {"global": 1}


def test_token_in_the_query_authenticates_at_once(core: Core) -> None:
    """
    It is as if an C{auth} message had followed, without an id.
    """
    claims = core.identity.verify(token(core, "ann", "s-1"))
    client = Client(core, Origin("bob", "s-2", claims))
    connected, ack, event = client.peer.take()

    assert (connected["type"], connected["authenticated"]) == ("connected", False)
    assert ack == {
        "type": "ack",
        "id": None,
        "success": True,
        "subscriptions": ["agents/ann", "global", "sessions/s-1"],
        "timestamp": WALL_MS,
        "epoch": "epoch",
        "pos": 0,
    }
    assert event["event"] == "agent.connected"
    assert event["data"] == {
        "agent_id": "ann",
        "client_id": connected["client_id"],
        "session_id": "s-1",
    }
    assert fits("agent.connected", event["data"], "service")


def test_connections_are_limited(clock: Clock) -> None:
    """
    Past the limit a client is closed with 1013 and told nothing; there is room again when another leaves.
    """
    core = make_core(clock, max_connections=2)
    first = Client(core)
    Client(core)
    peer = RecordingPeer()

    assert core.hub.connect(peer, Origin()) is None
    assert peer.closed is CloseCode.TRY_AGAIN_LATER
    assert peer.frames == []
    assert (stats(core)["connectedClients"], stats(core)["closes"]) == (2, {"1013": 1})
    first.leave()
    assert Client(core).peer.closed is None


def test_leaving_twice_is_leaving_once(core: Core) -> None:
    """
    A connection ends once, whichever side notices first.
    """
    watcher = Client(core)
    client = joined(core, agent="ann")
    watcher.peer.take()
    client.leave()
    client.leave()
    core.hub.close(client.session, CloseCode.RESTART)

    assert events(watcher.peer.take()) == [("global", "agent.disconnected")]
    assert client.peer.closed is None
    assert stats(core)["connectedClients"] == 1
    assert stats(core)["closes"] == {}


def test_one_who_left_with_many_makes_room(clock: Clock) -> None:
    """
    Clients whose end has not been dealt with yet keep nobody out.
    """
    core = make_core(clock, max_connections=2)
    first, second = Client(core), Client(core)
    core.hub.leave(first.session)
    core.hub.leave(second.session)
    assert stats(core)["connectedClients"] == 2
    assert Client(core).peer.closed is None
    assert stats(core)["connectedClients"] == 1


def test_one_who_left_with_many_comes_back(core: Core) -> None:
    """
    An agent that is back before its end has been dealt with gets what it still owed an ack for.
    """
    client = joined(core, "topics/t", agent="ann")
    missed = client.say(**TASK, data=1)
    core.hub.leave(client.session)
    _, *replayed, connected = joined_again(core, "ann")
    assert (replayed, connected["event"]) == (missed, "agent.connected")
    client.leave()
    assert stats(core)["connectedClients"] == 1


# sweeping


def test_client_that_leaves_during_a_sweep(clock: Clock, core: Core) -> None:
    """
    Clients may leave between two steps of a sweep; all others are pinged, then and the next time.
    """
    clients = [joined(core) for _ in range(4)]
    clock.advance(30)
    job = core.hub.sweep()
    next(job)
    (served,) = [client for client in clients if client.peer.frames]
    others = [client for client in clients if client is not served]
    others[0].leave()
    finish(job)

    for second in (30, 60):
        assert all(client.peer.take() for client in (served, *others[1:])), second
        for client in clients:
            client.session.heard_at = clock.seconds()
        clock.advance(30)
        finish(core.hub.sweep())
    assert others[0].peer.take() == []


def test_closing_a_silent_agent_is_told(clock: Clock, core: Core) -> None:
    """
    An agent whose connection times out has left, as if it had closed it; its deliveries are kept.
    """
    watcher = joined(core)
    client = joined(core, agent="ann")
    live(core, clock, 55)
    client.say(**TASK)
    watcher.peer.take()
    live(core, clock, 4)
    watcher.session.heard_at = clock.seconds()
    live(core, clock, 1)

    assert client.peer.closed is CloseCode.PING_TIMEOUT
    assert ("global", "agent.disconnected") in events(watcher.peer.take())
    assert texts(Client(core).auth("ann")) == [("global", None)]


def test_sweep_costs_what_is_due(clock: Clock, core: Core) -> None:
    """
    A sweep has no steps for clients whose time has not come.
    """
    for _ in range(10):
        joined(core)
    clock.advance(29)
    assert finish(core.hub.sweep()) == 0
    clock.advance(1)

    assert finish(core.hub.sweep()) == 10
    assert finish(core.retrying.sweep()) == 0


def test_draining_is_told(core: Core) -> None:
    """
    Before the service stops it says so.
    """
    client = joined(core)
    assert not core.hub.draining
    core.hub.drain()

    (event,) = client.peer.take()
    assert core.hub.draining
    assert (event["channel"], event["event"]) == ("global", "system.info")
    assert event["data"] == {"component": "server", "state": "draining"}
    assert fits("system.info", event["data"], "service")


def test_publishing_while_it_drains(core: Core) -> None:
    """
    Where other nodes have the same log, clients may publish until they are closed.
    """
    client = joined(core)
    core.hub.drain(accept=True)
    client.peer.take()
    message = {"type": "publish", "channel": "topics/t", "event": "task.created", "data": 1, "id": 1}
    assert client.say(**message)[-1]["type"] == "ack"
    core.hub.drain()
    assert client.say(**message)[-1]["code"] == "NOT_AVAILABLE"


def test_one_broken_client_does_not_end_a_sweep(clock: Clock, core: Core) -> None:
    """
    Where a client cannot be looked after, the others are with the next sweep.
    """

    class Broken(RecordingPeer):
        def send(self, frame: bytes) -> None:
            raise RuntimeError("broken")

    clients = [joined(core) for _ in range(5)]
    clients[2].session.peer = Broken()
    clock.advance(30)
    with pytest.raises(RuntimeError):
        finish(core.hub.sweep())
    clock.advance(1)
    finish(core.hub.sweep())

    pinged = [message["type"] for client in clients for message in client.peer.take()]
    assert pinged == ["ping"] * 4


def test_sweep_that_is_broken_off_is_made_up_for(clock: Clock, core: Core) -> None:
    """
    Clients that a sweep did not come to are looked after in the next one.
    """
    clients = [joined(core) for _ in range(5)]
    clock.advance(30)
    job = core.hub.sweep()
    assert isinstance(job, Generator)
    next(job)
    job.close()
    clock.advance(1)

    assert finish(core.hub.sweep()) == 4
    assert [message["type"] for client in clients for message in client.peer.take()] == ["ping"] * 5
