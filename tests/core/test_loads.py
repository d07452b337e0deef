"""
What agents owe, and how far clients are behind, in figures.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core import stats as stats_module
from dcm_ws.core.assembly import Core
from tests.core.clients import TASK, away, joined, stats
from tests.core.living import live
from tests.fakes import Client, make_core


def loads(core: Core) -> dict[str, Any]:
    return stats(core)["agentLoads"]


def publish(core: Core, number: int, **fields: Any) -> None:
    publisher = joined(core, quiet=True)
    for value in range(number):
        publisher.say(**TASK | fields, data=value)
    publisher.leave()


def slow(core: Core, agent: str) -> Client:
    """
    A client that reads nothing of what it catches up with.
    """
    client = Client(core)
    client.peer.replay = lambda frames: None  # type: ignore[method-assign]
    client.auth(agent)
    return client


def test_agents_that_owe_nothing_are_not_listed(core: Core) -> None:
    joined(core, agent="ann")
    assert loads(core) == {}
    assert (stats(core)["log"]["owed"], stats(core)["log"]["behind"]) == (0, 0)


def test_deliveries_in_flight(core: Core) -> None:
    """
    Those of all connections of an agent count; an ack on one of them settles all.
    """
    one, _ = (joined(core, "topics/t", agent="ann", quiet=True) for _ in range(2))
    publish(core, 3)
    assert loads(core) == {"ann": {"inFlight": 6, "owed": 6, "behind": 0, "dead": 0}}
    one.say(type="ack", pos=2)
    assert loads(core) == {"ann": {"inFlight": 2, "owed": 2, "behind": 0, "dead": 0}}
    assert stats(core)["log"]["owed"] == 2


def test_deliveries_of_absent_agents(core: Core) -> None:
    """
    What was sent before the agent left is owed; what it has missed is in the log.
    """
    ann = joined(core, "topics/t", agent="ann", quiet=True)
    publish(core, 3)
    ann.leave()
    publish(core, 4)
    away(core, "bob", 2)
    assert loads(core) == {"ann": {"inFlight": 0, "owed": 3, "behind": 0, "dead": 0}}
    assert stats(core)["log"]["owed"] == 3


def test_clients_that_catch_up(core: Core) -> None:
    """
    What waits for a client is owed before it is sent again.
    """
    ann = joined(core, "topics/t", agent="ann", quiet=True)
    publish(core, 3)
    ann.leave()
    publish(core, 4)
    slow(core, "ann")
    publish(core, 1)
    assert loads(core) == {"ann": {"inFlight": 0, "owed": 3, "behind": 5, "dead": 0}}
    log = stats(core)["log"]
    assert (log["owed"], log["behind"], log["catchingUp"], log["head"]) == (3, 5, 1, 8)


def test_slowest_connection_counts(core: Core) -> None:
    core_head = core.log.head
    for agent, missed in (("ann", 1), ("bob", 4)):
        away(core, agent, missed)
        slow(core, agent)
    assert core.log.head == core_head + 5
    assert {agent: load["behind"] for agent, load in loads(core).items()} == {"ann": 5, "bob": 4}
    assert stats(core)["log"]["behind"] == 5


def test_dead_letters(core: Core, clock: Clock) -> None:
    """
    Those of an agent are listed whether it is connected, away, or not known any more.
    """
    ann = joined(core, "topics/t", agent="ann", quiet=True)
    ann.auth("ann", durable=True)
    publish(core, 2)
    live(core, clock, 30)
    assert loads(core) == {"ann": {"inFlight": 0, "owed": 0, "behind": 0, "dead": 2}}
    publish(core, 1)
    assert loads(core) == {"ann": {"inFlight": 1, "owed": 1, "behind": 0, "dead": 2}}
    ann.leave()
    assert loads(core) == {"ann": {"inFlight": 0, "owed": 1, "behind": 0, "dead": 2}}
    live(core, clock, 2 * 86_400, 3600)
    assert loads(core) == {"ann": {"inFlight": 0, "owed": 0, "behind": 0, "dead": 2}}


def test_so_many_agents_are_listed_at_most(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of the connected and of the absent ones.
    """
    monkeypatch.setattr(stats_module, "NAMES_SHOWN", 3)
    core = make_core(clock)
    for number in range(10):
        client = joined(core, "topics/t", agent=f"agent-{number}", quiet=True)
        publish(core, 1)
        if number % 2:
            client.leave()
    assert sorted(loads(core)) == ["agent-0", "agent-1", "agent-2", "agent-3", "agent-4", "agent-5"]
    assert stats(core)["log"]["owed"] > 10


def test_names_are_left_out(core: Core) -> None:
    """
    The loads of agents are only for those who may see their names.
    """
    away(core, "ann", 1)
    assert "agentLoads" not in core.stats.report(names=False)
