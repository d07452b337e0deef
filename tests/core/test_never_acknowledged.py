"""
Clients that never acknowledge: what is given up for them is no failure.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agents import Absence
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.session import Origin
from dcm_ws.core.tracked import Tracked
from dcm_ws.protocol.channels import GLOBAL
from tests.core.living import live, make_memory, make_queue
from tests.core.test_delivery import Reader
from tests.fakes import Client, make_core

DAY = 86_400.0


def failures(core: Core) -> tuple[Any, Any]:
    stats: dict[str, Any] = dict(core.stats.report(names=True))
    assert stats["failedDeliveries"] == stats["deliveries"]["givenUp"]
    return stats["failedDeliveries"], stats["deliveries"]["neverAcknowledged"]


def event(core: Core) -> str:
    return core.router.publish(GLOBAL, "task.created", b"1").id


def test_dashboard_does_not_count_as_failed(clock: Clock, core: Core, counts: Counts) -> None:
    """
    What a client that has never acknowledged anything lets go by is counted apart; from its first ack on it counts.
    """
    dashboard = Client(core)
    event(core)
    live(core, clock, 20)
    assert failures(core) == (0, 1)
    dashboard.say(type="ack", message_id=event(core))
    event(core)
    live(core, clock, 20)
    assert failures(core) == (1, 1)


def test_agent_that_acknowledged_before_counts(clock: Clock, core: Core) -> None:
    """
    An agent that has acknowledged on one connection is expected to on the next, and on others that begin meanwhile.
    """
    first = Client(core)
    first.auth("ann")
    first.say(type="unsubscribe", channel="global")
    first.say(type="ack", message_id="msg_of_before")
    second = Client(core)
    second.auth("ann")
    event(core)
    live(core, clock, 20)
    assert failures(core) == (1, 0)
    first.leave()
    second.leave()
    again, other = Client(core), Client(core)
    again.auth("ann")
    other.auth("bob")
    event(core)
    live(core, clock, 20)
    assert failures(core) == (2, 1)


def test_what_is_kept_for_an_agent_counts_as_its_own(clock: Clock, core: Core) -> None:
    """
    What an absent agent owed is a failure only if it has ever acknowledged.
    """
    for agent in ("ann", "bob"):
        client = Client(core)
        client.auth(agent)
        if agent == "ann":
            client.say(type="ack", message_id=event(core))
        owed = event(core)
        assert owed in client.session.owed
        client.leave()
    live(core, clock, 301)
    assert failures(core) == (1, 1)


def test_ack_before_authenticating_counts_for_the_agent(clock: Clock, core: Core) -> None:
    """
    A connection that has acknowledged counts as acknowledging, as whichever agent it authenticates later.
    """
    client = Client(core)
    client.say(type="ack", message_id=event(core))
    client.auth("ann")
    event(core)
    live(core, clock, 20)
    assert failures(core) == (1, 0)
    client.leave()
    assert core.memory.is_durable("ann")


def test_ack_of_an_observer_says_nothing_of_its_agent(core: Core) -> None:
    """
    An observer is not its agent.
    """
    observer = Client(core, Origin(observer=True))
    observer.auth("ann")
    observer.say(type="ack", message_id="msg_1")
    observer.leave()
    assert not core.memory.is_durable("ann")


@pytest.mark.parametrize("limit", ["max_pending", "max_bytes"])
def test_crowded_out_deliveries_are_told_apart_too(clock: Clock, limit: str, counts: Counts) -> None:
    """
    It is the same for what goes because too much is owed, by one client or by all.
    """
    limits: dict[str, Any] = {"max_pending": 10, "max_bytes": 1000, limit: 1 if limit == "max_pending" else 80}
    queue = make_queue(clock, counts, **limits)
    reader = Reader()
    for number in range(3):
        queue.sent(Tracked(number, f"msg_{number}", (b"x" * 8,)), {reader})
    assert (counts.deliveries.given_up, counts.deliveries.never_acknowledged) == (0, 2)


def test_durable_agents_are_remembered_for_a_day(clock: Clock) -> None:
    """
    That is as long as their subscriptions are, from the end of their last connection.
    """
    memory = make_memory(clock)
    memory.left("ann", Absence({}, {}, durable=True))
    memory.left("bob", Absence({}, {}))
    clock.advance(DAY - 1)
    assert (memory.is_durable("ann"), memory.is_durable("bob"), memory.is_durable("cid")) == (True, False, False)
    clock.advance(1)
    assert not memory.is_durable("ann")
    memory.expire()
    assert not memory.is_durable("ann")


# agents that say that they will acknowledge


def test_agent_says_that_it_is_durable(clock: Clock, core: Core) -> None:
    """
    What it does not acknowledge is a failure from the start, also when it has returned without saying so again.
    """
    client = Client(core)
    client.auth("ann", durable=True)
    event(core)
    live(core, clock, 20)
    assert failures(core) == (1, 0)
    client.leave()
    for durable in (None, False, ""):
        client = Client(core)
        client.auth("ann", durable=durable)
        assert client.session.durable
        client.leave()


@pytest.mark.parametrize("durable", [None, False, ""])
def test_agent_says_nothing(core: Core, durable: object) -> None:
    """
    Without an ack, and without saying so, it is not durable.
    """
    client = Client(core)
    client.auth("ann", durable=durable)
    assert not client.session.durable


def test_observer_is_not_durable(core: Core) -> None:
    """
    It owes nothing, whatever it says.
    """
    client = Client(core)
    client.auth("ann", durable=True, observer=True)
    assert not client.session.durable


def test_durable_agent_waits_for_room(clock: Clock) -> None:
    """
    It has never acknowledged anything, but will: so it loses nothing when too much is in flight.
    """
    core = make_core(clock, max_pending=2, ack_timeout=1000.0)
    client = Client(core)
    client.auth("ann", durable=True)
    ids = [event(core) for _ in range(4)]
    live(core, clock, 30)
    assert list(client.session.owed) == ids[:2]
    assert failures(core) == (0, 0)


def test_all_connections_of_an_agent_are_durable(core: Core) -> None:
    """
    That one of them acknowledges holds for the others, also for later ones.
    """
    first, second = Client(core), Client(core)
    first.auth("ann")
    second.auth("ann")
    first.say(type="ack", message_id=event(core))
    assert second.session.durable
    third = Client(core)
    third.auth("ann")
    assert third.session.durable
