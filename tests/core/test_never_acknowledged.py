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
from dcm_ws.core.delivery import Tracked
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import GLOBAL
from tests.core.living import live, make_memory, make_queue
from tests.core.test_delivery import Reader
from tests.fakes import Client

DAY = 86_400.0


def failures(core: Core) -> tuple[Any, Any]:
    stats: dict[str, Any] = core.stats.report(names=True)
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
    assert core.memory.acknowledges("ann")


def test_ack_of_an_observer_says_nothing_of_its_agent(core: Core) -> None:
    """
    An observer is not its agent.
    """
    observer = Client(core, Origin(observer=True))
    observer.auth("ann")
    observer.say(type="ack", message_id="msg_1")
    assert not core.memory.acknowledges("ann")


@pytest.mark.parametrize("limit", ["max_pending", "max_bytes"])
@pytest.mark.parametrize("acknowledges", [False, True])
def test_crowded_out_deliveries_are_told_apart_too(
    clock: Clock, limit: str, acknowledges: bool, counts: Counts
) -> None:
    """
    It is the same for what goes because too much is owed, by one client or by all.
    """
    limits: dict[str, Any] = {"max_pending": 10, "max_bytes": 100, limit: 1 if limit == "max_pending" else 10}
    queue = make_queue(clock, counts, **limits)
    reader = Reader()
    reader.acknowledges = acknowledges
    for number in range(3):
        queue.sent(Tracked(number, f"msg_{number}", (b"x" * 8,)), {reader})
    assert (counts.deliveries.given_up, counts.deliveries.never_acknowledged) == ((2, 0) if acknowledges else (0, 2))


def test_agents_that_acknowledge_are_remembered_for_a_day(clock: Clock) -> None:
    """
    That is a day from the last ack that was first on its connection, or from the end of a connection that had one.
    """
    memory = make_memory(clock)
    memory.acknowledged("ann")
    clock.advance(DAY - 1)
    assert memory.acknowledges("ann")
    memory.left("ann", Absence({}, (), acknowledges=True))
    memory.left("bob", Absence(frozenset(), (), 0))
    clock.advance(DAY - 1)
    memory.expire()
    assert (memory.acknowledges("ann"), memory.acknowledges("bob")) == (True, False)
    clock.advance(1)
    assert not memory.acknowledges("ann")
    memory.expire()
    assert not memory.acknowledges("ann")


def test_so_many_agents_are_remembered(clock: Clock) -> None:
    """
    Beyond the limit the one is forgotten whose acks are the longest ago.
    """
    memory = make_memory(clock, max_agents=2)
    for agent in ("ann", "bob", "ann", "cid"):
        memory.acknowledged(agent)
    assert [memory.acknowledges(agent) for agent in ("ann", "bob", "cid")] == [True, False, True]
