"""
Who is connected in a cluster, as each node knows and announces it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock

from dcm_ws.core import nodes
from dcm_ws.core.assembly import Core
from dcm_ws.core.nodes import Nodes
from dcm_ws.core.presence_messages import Member, Said
from dcm_ws.protocol.channels import GLOBAL
from tests.core.living import finish
from tests.core.owning import Air, LateOwners
from tests.fakes import Client, make_core


class Node:
    """
    One node, and what it has announced.
    """

    def __init__(self, air: Air, name: str, clock: Clock) -> None:
        self.end = air.end(name)
        self.announced: list[tuple[str, str]] = []
        self.gone: list[str] = []
        self.moved: list[str] = []
        self.metrics = False
        self.nodes = Nodes(
            self.end,
            clock.seconds,
            self._announce,
            gone=self.gone.append,
            moved=self.moved.append,
            metrics=lambda: self.metrics,
        )

    def _announce(self, event: str, member: Member) -> None:
        self.announced.append((event.removeprefix("agent."), member.client))

    def take(self) -> list[tuple[str, str]]:
        taken, self.announced = self.announced, []
        return taken


@pytest.fixture
def air() -> Air:
    return Air()


@pytest.fixture
def pair(air: Air, clock: Clock) -> tuple[Node, Node]:
    return Node(air, "1", clock), Node(air, "2", clock)


def pass_time(clock: Clock, seconds: int, *some: Node) -> None:
    for _ in range(seconds):
        clock.advance(1)
        for node in some:
            finish(node.nodes.sweep())


def join(node: Node, client: str, agent: str = "ann") -> None:
    node.nodes.joined(Member(client, agent, None))


def test_each_node_announces_what_comes_and_goes(pair: tuple[Node, Node], clock: Clock) -> None:
    one, two = pair
    join(one, "c1")
    join(two, "c2")
    assert one.take() == two.take() == [("connected", "c1"), ("connected", "c2")]
    one.nodes.parted("c1")
    one.nodes.parted("c1")
    assert one.take() == two.take() == [("disconnected", "c1")]
    assert (len(one.nodes), "2" in one.nodes, one.nodes.agents) == (1, True, 1)
    assert [member.client for member in one.nodes.members()] == ["c2"]


def test_an_agent_that_authenticates_again(pair: tuple[Node, Node]) -> None:
    """
    It is announced again, as by a service without a cluster.
    """
    one, two = pair
    join(one, "c1")
    join(one, "c1")
    assert two.take() == [("connected", "c1")] * 2
    one.nodes.joined(Member("c1", "bob", None))
    assert two.nodes.has("bob") and not two.nodes.has("ann")


def test_an_agent_is_back_in_time(pair: tuple[Node, Node], clock: Clock) -> None:
    one, two = pair
    join(one, "c1")
    one.nodes.parted("c1")
    pass_time(clock, 4, *pair)
    join(two, "c2")
    pass_time(clock, 10, *pair)
    assert one.take() == two.take() == [("connected", "c1")]
    two.nodes.parted("c2")
    pass_time(clock, 4, *pair)
    assert one.take() == two.take() == []
    pass_time(clock, 2, *pair)
    assert one.take() == two.take() == [("disconnected", "c2")]


def test_an_agent_leaves_twice_in_a_short_time(pair: tuple[Node, Node], clock: Clock) -> None:
    """
    The time begins again with the last connection.
    """
    one, _ = pair
    for client in ("c1", "c2"):
        join(one, client)
        one.nodes.parted(client)
        pass_time(clock, 3, one)
    assert one.take() == [("connected", "c1")]
    pass_time(clock, 3, one)
    assert one.take() == [("disconnected", "c2")]


def test_messages_are_lost(pair: tuple[Node, Node], air: Air, clock: Clock) -> None:
    """
    The next heartbeat, or message, says that something is missing.
    """
    one, two = pair
    join(one, "c1")
    air.lost = True
    one.nodes.parted("c1")
    for number in range(2, 5):
        join(one, f"c{number}", f"a{number}")
    air.lost = False
    assert two.take() == [("connected", "c1")]
    pass_time(clock, 3, one)
    assert two.take() == [("connected", f"c{number}") for number in range(2, 5)]
    pass_time(clock, 6, one, two)
    assert two.take() == [("disconnected", "c1")]
    air.lost = True
    join(one, "c5", "a5")
    air.lost = False
    join(one, "c6", "a6")
    assert sorted(two.take()) == [("connected", "c5"), ("connected", "c6")]


def test_messages_come_twice(pair: tuple[Node, Node]) -> None:
    one, two = pair
    join(one, "c1")
    topic, message = one.end.cast_on[-1]
    two.end.listeners[topic]("1", message)
    assert two.take() == [("connected", "c1")]


def test_a_node_that_is_silent(pair: tuple[Node, Node], clock: Clock) -> None:
    one, two = pair
    join(one, "c1")
    join(one, "c2")
    pass_time(clock, 6, two)
    assert "1" in two.nodes
    pass_time(clock, 1, two)
    assert "1" not in two.nodes and two.gone == ["1"]
    pass_time(clock, 6, two)
    assert two.take() == [("connected", "c1"), ("connected", "c2"), ("disconnected", "c1"), ("disconnected", "c2")]
    pass_time(clock, 3, one)
    assert two.take() == [("connected", "c1"), ("connected", "c2")]


def crowd(air: Air, clock: Clock, number: int) -> list[Node]:
    """
    Nodes that have heard of each other.
    """
    some = [Node(air, str(name), clock) for name in range(number)]
    pass_time(clock, 2, *some)
    for node in some:
        node.end.cast_on.clear()
    return some


@pytest.mark.parametrize(("number", "seconds"), [(2, 2), (30, 2), (31, 3), (60, 4), (90, 6)])
def test_many_nodes(air: Air, clock: Clock, number: int, seconds: int) -> None:
    """
    The more nodes there are, the more seldom each sends heartbeats: a node hears 15 of them a second, at most.
    """
    some = crowd(air, clock, number)
    pass_time(clock, seconds * 4, *some)
    assert [len(node.end.cast_on) for node in some] == [4] * number
    assert all(len(node.nodes) == number - 1 for node in some)


def test_a_silent_node_of_many(air: Air, clock: Clock) -> None:
    """
    It counts as gone when three of its heartbeats are missing, however often it has sent them.  A node that has just
    come, and knows of few others, takes none of them for gone.
    """
    *some, silent = crowd(air, clock, 60)
    pass_time(clock, 8, *some, silent)
    fresh = Node(air, "fresh", clock)
    join(silent, "c1")
    pass_time(clock, 11, *some, fresh)
    assert all(silent.end.node in node.nodes for node in (*some, fresh))
    assert all(node.gone == [] for node in (*some, fresh))
    pass_time(clock, 3, *some, fresh)
    assert all(node.gone == [silent.end.node] for node in (*some, fresh))


def test_nodes_that_have_become_few(air: Air, clock: Clock) -> None:
    """
    A node whose next heartbeat is far away does not promise to send it sooner.
    """
    one, two, *others = crowd(air, clock, 90)
    pass_time(clock, 6, one, two, *others)
    for node in others:
        node.nodes.leave()
    join(one, "c1")
    pass_time(clock, 60, one, two)
    assert (one.gone, two.gone) == ([node.end.node for node in others],) * 2


@pytest.mark.parametrize("answers", [False, True])
def test_a_node_that_the_database_does_not_see(
    air: Air, clock: Clock, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """
    The node that leads tells all others, and each of them asks that node if it is still there.
    """
    some = crowd(air, clock, 60)
    pass_time(clock, 4, *some)
    *others, silent = some
    join(silent, "c1")
    if not answers:
        del air.ends[silent.end.node]
    others[0].nodes.suspect(silent.end.node)
    others[0].nodes.suspect("nobody")
    air.arrive()
    for node in others:
        assert (silent.end.node in node.nodes) is answers
        assert node.gone == ([] if answers else [silent.end.node])


def test_a_node_that_says_goodbye(pair: tuple[Node, Node], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What was on its way is not heard any more.
    """
    monkeypatch.setattr(nodes, "_LATELY", 1)
    one, two = pair
    join(one, "c1")
    one.nodes.leave()
    assert two.gone == ["1"]
    one.nodes.leave()
    join(one, "c2")
    assert [member.client for member in two.nodes.members()] == []
    two.end.listeners[nodes.TOPIC]("7", msgspec.json.encode(Said("quit")))
    pass_time(clock, 3, one)
    assert "1" in two.nodes


def test_many_connections(pair: tuple[Node, Node], air: Air, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    They are read in pages, and what comes and goes meanwhile is not forgotten.
    """
    monkeypatch.setattr(nodes, "PAGE", 2)
    one, two = pair
    air.lost = True
    for number in range(5):
        join(one, f"c{number}", f"a{number}")
    air.lost, air.late = False, True
    finish(one.nodes.sweep())
    pass_time(clock, 2, one)
    for _ in range(2):
        air.waiting.pop(0)()
    join(one, "c00", "b")
    one.nodes.parted("c1")
    one.nodes.parted("c4")
    join(one, "c5", "c")
    air.arrive()
    air.arrive()
    assert sorted(member.client for member in two.nodes.members()) == ["c0", "c00", "c2", "c3", "c5"]
    air.late = False
    before = len(two.take())
    pass_time(clock, 4, one, two)
    assert before >= 5 and two.take() == []


@pytest.mark.parametrize("answer", [None, b"?"])
def test_no_answer(pair: tuple[Node, Node], air: Air, clock: Clock, answer: bytes | None) -> None:
    """
    The next heartbeat asks again.
    """
    one, two = pair
    air.lost = True
    join(one, "c1")
    air.lost = False
    asked: list[Callable[[bytes | None], object]] = []
    ask = two.end.ask
    two.end.ask = lambda *arguments: asked.append(arguments[-1])  # type: ignore[method-assign]
    pass_time(clock, 2, one)
    pass_time(clock, 2, one)
    (ready,) = asked
    ready(answer)
    ready(answer)
    two.end.ask = ask  # type: ignore[method-assign]
    pass_time(clock, 2, one)
    assert two.take() == [("connected", "c1")]


def test_a_message_of_another_version(pair: tuple[Node, Node]) -> None:
    _, two = pair
    assert two.end.listeners[nodes.TOPIC]("1", b"[]") is None
    # an answer that nobody has asked for
    assert two.end.listeners[nodes.TOPIC]("1", b'["page",9]') is None
    assert len(two.nodes) == 0


# with the rest of the core


class Member2(Client):
    """
    A client that only wants to know who comes and goes.
    """

    def presences(self) -> list[tuple[str, str]]:
        return [
            (message["event"], message["data"]["agent_id"])
            for message in self.peer.take()
            if message.get("event", "").startswith("agent.")
        ]


def cluster(clock: Clock, air: Air) -> list[Core]:
    made = []
    for name in ("1", "2"):
        owners = LateOwners()
        owners.at_once = True
        core = make_core(clock, owners=owners, bus=air.end(name), random=lambda n, name=name: name * n)  # type: ignore[misc]
        finish(core.loading.load({}, ()))
        made.append(core)
    return made


def test_clients_of_all_nodes(clock: Clock, air: Air) -> None:
    one, two = cluster(clock, air)
    listeners = Member2(one), Member2(two)
    ann = Client(one)
    ann.auth("ann")
    assert [each.presences() for each in listeners] == [[("agent.connected", "ann")]] * 2
    ann.leave()
    for _ in range(6):
        clock.advance(1)
        for core in (one, two):
            finish(core.hub.sweep())
    assert [each.presences() for each in listeners] == [[("agent.disconnected", "ann")]] * 2


def test_the_last_connection_at_the_node_that_has_the_agent(clock: Clock, air: Air) -> None:
    one, two = cluster(clock, air)
    first, second = Client(one), Client(two)
    first.auth("ann")
    second.auth("ann")
    first.leave()
    second.leave()
    owners: Any = one.ownership._owners
    assert owners.offered == ["ann"]


def test_nodes_that_do_not_share_agents(clock: Clock, air: Air) -> None:
    """
    Without owners, nodes know who is connected, and each keeps what its own connections of an agent are owed.
    """
    one, two = (make_core(clock, bus=air.end(name)) for name in "12")
    listener, first, second = Client(one), Client(one), Client(two)
    listener.auth("bob")
    first.auth("ann")
    second.auth("ann")
    first.leave()
    assert one.presence.nodes is not None
    assert one.presence.nodes.has("ann")
    second.leave()
    assert not one.presence.nodes.has("ann")


def test_events_that_are_not_logged(clock: Clock, air: Air) -> None:
    """
    They go to the clients of all nodes; what a node says of itself goes only to its own.
    """
    one, two = cluster(clock, air)
    publisher, listener = Client(one), Client(two)
    listener.peer.take()
    publisher.say(type="publish", channel="topics/t", event="system.info", data={"n": 1})
    (message,) = listener.peer.take()
    assert (message["channel"], message["event"], message["data"]) == ("global", "system.info", {"n": 1})
    one.application_hub.announce(GLOBAL, "metric.update", 7)
    (message,) = listener.peer.take()
    assert message["data"] == 7
    one.hub.drain()
    assert listener.peer.take() == []
    for broken in (b"", b'["x","topics/t"]\n1', b'["id","?","system.info",1,"","","",true]\n1'):
        air.ends["2"].listeners["event"]("1", broken)
    assert listener.peer.take() == []


def test_a_reset(clock: Clock, air: Air) -> None:
    """
    Nobody is announced to be gone until there was time to come back.
    """
    one, two = cluster(clock, air)
    listener = Member2(two)
    ann = Client(one)
    ann.auth("ann")
    listener.presences()
    one.hub.reset()
    for _ in range(4):
        clock.advance(1)
        for core in (one, two):
            finish(core.hub.sweep())
    again = Client(two)
    again.auth("ann")
    assert listener.presences() == []


def test_an_agent_is_back_while_others_are_announced(pair: tuple[Node, Node], clock: Clock) -> None:
    one, _ = pair
    for name in "ab":
        join(one, f"{name}1", name)
        one.nodes.parted(f"{name}1")
    one.take()
    clock.advance(6)
    sweep = one.nodes.sweep()
    next(sweep)
    join(one, "b2", "b")
    finish(sweep)
    assert one.take() == [("disconnected", "a1")]


def test_a_connection_leaves_while_all_are_read(pair: tuple[Node, Node], air: Air, clock: Clock) -> None:
    """
    The answer was written before, and arrives later.
    """
    one, two = pair
    air.lost = True
    for name in ("c1", "c2"):
        join(one, name)
    air.lost = False
    asked: list[tuple[Any, ...]] = []
    two.end.ask = lambda *arguments: asked.append(arguments)  # type: ignore[method-assign]
    pass_time(clock, 2, one)
    answer = one.end.listeners[nodes.TOPIC]("2", asked[0][2])
    one.nodes.parted("c1")
    asked[0][-1](answer)
    assert [member.client for member in two.nodes.members()] == ["c2"]


def test_a_reset_of_one_of_two_connections(clock: Clock, air: Air) -> None:
    one, two = cluster(clock, air)
    listener = Member2(two)
    for core in (one, two):
        Client(core).auth("ann")
    listener.presences()
    one.hub.reset()
    assert one.presence.nodes is not None and one.presence.nodes.agents == 1
    clock.advance(3)
    finish(one.hub.sweep())
    assert listener.presences() == [("agent.disconnected", "ann")]


def test_a_node_stops(clock: Clock, air: Air) -> None:
    one, two = cluster(clock, air)
    Client(one).auth("ann")
    assert two.presence.nodes is not None and len(two.presence.nodes) == 1
    one.presence.leave()
    assert len(two.presence.nodes) == 0
    make_core(clock).presence.leave()


def test_a_node_is_fenced(clock: Clock, air: Air) -> None:
    one, two = cluster(clock, air)
    Client(two).auth("ann")
    assert one.presence.nodes is not None and "2" in one.presence.nodes
    del air.ends["2"]
    one.presence.suspect("2")
    air.arrive()
    assert "2" not in one.presence.nodes
    make_core(clock).presence.suspect("2")


def test_who_wants_the_metrics(clock: Clock, air: Air) -> None:
    """
    The node that leads learns within a second that a client of another node is subscribed to them, or is not any more,
    and when a node is gone.
    """
    one, two = cluster(clock, air)

    def beat() -> None:
        for _ in range(1):
            clock.advance(1)
            for core in (one, two):
                finish(core.hub.sweep())

    assert not one.presence.wants_metrics()
    client = Client(two)
    client.say(type="subscribe", channel="metrics")
    assert two.presence.wants_metrics()
    beat()
    assert one.presence.wants_metrics()
    client.say(type="unsubscribe", channel="metrics")
    beat()
    assert not one.presence.wants_metrics() and not two.presence.wants_metrics()
    client.say(type="subscribe", channel="metrics")
    beat()
    two.presence.leave()
    assert not one.presence.wants_metrics()
