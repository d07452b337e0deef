"""
Which connections there are, at all nodes.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock

from dcm_ws.core import whereabouts
from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.core.whereabouts import Found
from tests.core.living import live
from tests.core.owning import Air
from tests.fakes import WALL_MS, Client, make_core


def look(core: Core, kind: str, name: str) -> tuple[int, list[dict[str, Any]], list[str]]:
    """
    What is found: how many, the connections, and the nodes that have not answered.
    """
    found: list[Found] = []
    ask = core.whereabouts.of_agent if kind == "agent" else core.whereabouts.of_channel
    ask(name, found.append)
    ((total, connections, missing),) = found
    return total, [json.loads(bytes(one)) for one in connections], missing


def worker(core: Core, agent: str, *channels: str) -> Client:
    """
    A client of an agent that is subscribed to some channels.
    """
    client = Client(core)
    client.say(type="auth", agent_id=agent, session_id="work")
    for channel in channels:
        client.say(type="subscribe", channel=channel)
    return client


def cluster(clock: Clock) -> tuple[Air, Core, Core]:
    """
    Two nodes that know of each other.
    """
    air = Air()
    one, two = (make_core(clock, bus=air.end(name)) for name in ("1", "2"))
    for core in (one, two):
        live(core, clock, 3)
    return air, one, two


def test_service_alone(clock: Clock) -> None:
    """
    A connection is found with what it is subscribed to, how far it is, and what it has not acknowledged.
    """
    core = make_core(clock)
    client = worker(core, "ann", "topics/a")
    worker(core, "bob").say(type="publish", channel="topics/a", event="task.created")
    clock.advance(10)
    assert look(core, "agent", "ann") == (
        1,
        [
            {
                "client_id": client.session.client_id,
                "agent_id": "ann",
                "session_id": "work",
                "node": "",
                "since": WALL_MS,
                "observer": False,
                "pos": 1,
                "unacknowledged": 1,
                "subscribed": 4,
                "subscriptions": ["agents/ann", "global", "sessions/work", "topics/a"],
            }
        ],
        [],
    )
    assert list(core.whereabouts.agents()) == ["ann", "bob"]
    assert (core.whereabouts.number("ann"), core.whereabouts.number("nobody")) == (1, 0)
    assert look(core, "agent", "nobody") == (0, [], [])


def test_subscribers(clock: Clock) -> None:
    """
    The connections of a channel are all that are subscribed to it, also observers and clients without an agent; what
    else they are subscribed to is not listed.
    """
    core = make_core(clock)
    worker(core, "ann", "topics/a")
    Client(core, Origin(observer=True)).say(type="subscribe", channel="topics/a")
    total, connections, _ = look(core, "channel", "topics/a")
    assert total == 2
    assert sorted((one["agent_id"] or "", one["observer"], one["subscriptions"]) for one in connections) == [
        ("", True, []),
        ("ann", False, []),
    ]


def test_nodes(clock: Clock) -> None:
    """
    The connections at other nodes are found, too.
    """
    _, one, two = cluster(clock)
    worker(one, "ann", "topics/a")
    worker(two, "ann", "topics/a")
    for core in (one, two):
        total, connections, missing = look(core, "agent", "ann")
        assert (total, sorted(connection["node"] for connection in connections), missing) == (2, ["1", "2"], [])
        assert look(core, "channel", "topics/a")[0] == 2
        assert list(core.whereabouts.agents()) == ["ann"]
        assert core.whereabouts.number("ann") == 2


def test_three_nodes(clock: Clock) -> None:
    """
    The answer comes when all nodes have answered.
    """
    air = Air()
    cores = [make_core(clock, bus=air.end(name)) for name in ("1", "2", "3")]
    for core in cores:
        live(core, clock, 3)
        worker(core, "ann")
    air.late = True
    found: list[Found] = []
    cores[0].whereabouts.of_agent("ann", found.append)
    air.waiting.pop(0)()
    assert not found
    air.arrive()
    assert found[0].total == 3


def test_node_that_is_alone(clock: Clock) -> None:
    """
    The only node of a cluster asks nobody.
    """
    core = make_core(clock, bus=Air().end("1"))
    worker(core, "ann")
    assert look(core, "agent", "ann")[0] == 1


def test_node_that_does_not_answer(clock: Clock) -> None:
    """
    If a node does not answer, the others' connections are there, and it is named.
    """
    air, one, two = cluster(clock)
    worker(one, "ann")
    worker(two, "ann")
    air.lost = True
    found: list[Found] = []
    one.whereabouts.of_agent("ann", found.append)
    assert not found
    air.arrive()
    assert (found[0].total, found[0].missing) == (1, ["2"])


@pytest.mark.parametrize("answer", [b"nonsense", b"[]", None])
def test_other_versions(clock: Clock, answer: bytes | None) -> None:
    """
    A node of another version may answer what this one does not understand, and this one does not answer what it does
    not understand.
    """
    air, one, _ = cluster(clock)
    air.ends["2"].listeners[whereabouts.TOPIC] = lambda node, message: answer
    assert look(one, "agent", "ann") == (0, [], ["2"])
    assert air.ends["1"].listeners[whereabouts.TOPIC]("2", b"nonsense") is None


def test_many_connections(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If there are very many connections, or subscriptions, all are counted and the first are listed: a node's answer has
    a limited size.
    """
    monkeypatch.setattr(whereabouts, "_BYTES", 5000)
    core = make_core(clock)
    for _ in range(20):
        worker(core, "ann", *(f"topics/{number}" for number in range(150)))
    total, connections, _ = look(core, "agent", "ann")
    assert (total, 0 < len(connections) < 20) == (20, True)
    assert (connections[0]["subscribed"], len(connections[0]["subscriptions"])) == (153, 100)
    assert len(msgspec.json.encode(connections)) <= 5200
