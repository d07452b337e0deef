from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agents import NOTHING_MISSED, Absence
from dcm_ws.core.counts import Counts
from dcm_ws.core.tracked import Owed
from tests.core.living import make_memory


def absence(channels: Iterable[str] = (), owed: Iterable[int] = (), since: int = 0) -> Absence:
    return Absence(dict.fromkeys(channels, since), {pos: Owed(f"msg_{pos}", 0, 1) for pos in owed}, durable=True)


def test_stranger_is_not_remembered(clock: Clock) -> None:
    """
    An agent that was never here gets nothing back.
    """
    assert make_memory(clock).returned("ann") is None


def test_agent_gets_back_what_it_left(clock: Clock) -> None:
    """
    Subscriptions and deliveries wait for the agent that left them.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], [1, 2], since=2))
    memory.left("bob", absence(["metrics"], [2], since=2))

    assert (len(memory), memory.absent, memory.kept) == (2, 2, 3)
    assert memory.returned("ann") == absence(["global"], [1, 2], since=2)
    assert (len(memory), memory.absent, memory.kept) == (2, 1, 1)


def test_deliveries_are_given_back_once(clock: Clock) -> None:
    """
    A second connection of an agent gets its subscriptions, and not its deliveries again.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], [1], since=1))
    memory.returned("ann")

    again = memory.returned("ann")
    assert again is not None
    assert again == Absence({"global": NOTHING_MISSED}, {})


def test_deliveries_are_kept_for_five_minutes(clock: Clock, counts: Counts) -> None:
    """
    Deliveries wait for 5 minutes and are given up then; subscriptions wait for longer.
    """
    memory = make_memory(clock, counts)
    memory.left("ann", absence(["global"], [1, 2], since=2))
    memory.left("bob", absence(["global"], [3], since=3))
    clock.advance(299)
    assert memory.returned("bob") == absence(["global"], [3], since=3)
    clock.advance(1)
    memory.expire()

    assert (memory.kept, counts.deliveries.given_up, memory.absent, len(memory)) == (0, 2, 0, 2)
    assert memory.returned("ann") == Absence({"global": NOTHING_MISSED}, {})


def test_expired_deliveries_do_not_come_back_without_a_sweep(clock: Clock) -> None:
    """
    Whether the sweep came by in time makes no difference.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], [1], since=1))
    clock.advance(300)

    returned = memory.returned("ann")
    assert returned is not None
    assert list(returned.owed) == []


def test_subscriptions_are_kept_for_a_day(clock: Clock) -> None:
    """
    The memory of an agent expires after 24 h.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"]))
    clock.advance(86_399)
    assert memory.returned("ann") is not None
    clock.advance(1)
    memory.expire()

    assert len(memory) == 0
    assert memory.returned("ann") is None


def test_longest_unseen_agent_is_forgotten_first(clock: Clock, counts: Counts) -> None:
    """
    Past the limit, who left first is forgotten, with its deliveries.
    """
    memory = make_memory(clock, counts, max_agents=2)
    memory.left("ann", absence(["global"], [1]))
    memory.left("bob", absence(["global"], [1]))
    memory.returned("ann")
    memory.left("ann", absence(["global"], [1]))
    memory.left("cid", absence(["global"], [1]))

    assert memory.returned("bob") is None
    assert memory.returned("ann") is not None
    assert memory.returned("cid") is not None
    assert counts.deliveries.given_up == 1


def test_forgotten_agent_that_came_back_has_nothing_to_give_up(clock: Clock, counts: Counts) -> None:
    """
    An agent that is here again owes nothing to the memory.
    """
    memory = make_memory(clock, counts, max_agents=1)
    memory.left("ann", absence(["global"], [1]))
    memory.returned("ann")
    memory.left("bob", absence(["global"], [1]))

    assert (counts.deliveries.given_up, memory.kept) == (0, 1)


def test_kept_deliveries_are_bounded(clock: Clock, counts: Counts) -> None:
    """
    Past the limit the agents that have most lose their oldest deliveries, and keep their subscriptions.
    """
    memory = make_memory(clock, counts, max_kept=3)
    memory.left("ann", absence(["global"], [1, 2]))
    memory.left("bob", absence(["global"], [1, 2]))

    assert (memory.kept, counts.deliveries.given_up) == (3, 1)
    assert memory.returned("ann") == absence(["global"], [2])
    assert memory.returned("bob") == absence(["global"], [1, 2])
    assert counts.limits.max_kept.take_losers() == {"ann": 1}


@pytest.mark.parametrize(("agents", "forgotten"), [(2, 0), (3, 0), (4, 1)])
def test_agents_remembered_may_reach_the_limit(clock: Clock, agents: int, forgotten: int, counts: Counts) -> None:
    """
    Exactly as many agents as the limit are remembered; one more makes the longest absent one go.
    """
    memory = make_memory(clock, counts, max_agents=3)
    for number in range(agents):
        memory.left(f"agent-{number}", absence(["global"]))

    assert (len(memory), counts.limits.max_agents.value) == (min(agents, 3), forgotten)
    assert (memory.returned("agent-0") is None) == bool(forgotten)


@pytest.mark.parametrize(("owed", "given_up"), [(2, 0), (3, 0), (4, 1)])
def test_deliveries_kept_may_reach_the_limit(clock: Clock, owed: int, given_up: int, counts: Counts) -> None:
    """
    Exactly as many deliveries as the limit are kept; with more the agents that have most lose their oldest.
    """
    memory = make_memory(clock, counts, max_kept=3)
    first = owed - 1
    memory.left("ann", absence(["global"], range(1, first + 1)))
    memory.left("bob", absence(["global"], [first + 1]))

    assert (counts.limits.max_kept.value, memory.kept) == (given_up, owed - given_up)


def test_connection_that_was_many_agents_loses_its_own(clock: Clock, counts: Counts) -> None:
    """
    Nobody can have others forgotten by authenticating as one agent after another.
    """
    memory = make_memory(clock, counts, max_agents=3)
    memory.left("ann", absence(["global"]), "ws_ann")
    for number in range(5):
        memory.left(f"mallory-{number}", absence(["global"]), "ws_mallory")

    assert memory.returned("ann") is not None
    assert [memory.returned(f"mallory-{number}") is not None for number in range(5)] == [False] * 3 + [True] * 2
    assert counts.limits.max_agents.value == 3
    memory.left("mallory-3", absence(["global"]), "ws_other")
    memory.left("bob", absence(["global"]), "ws_bob")
    assert memory.returned("ann") is None


def long_names(number: int) -> list[str]:
    return [f"topics/{number:04}-{channel:04}".ljust(128, "x") for channel in range(990)]


def test_remembered_subscriptions_are_bounded_in_bytes(clock: Clock, counts: Counts) -> None:
    """
    Regression: 216 KiB for each agent with 990 long channel names, for a day.  Who has most loses first.
    """
    memory = make_memory(clock, counts, max_agent_bytes=4 << 20)
    memory.left("ann", absence(["global", "topics/a"], [1]), "ws_ann")
    tracemalloc.start()
    try:
        for number in range(100):
            memory.left(f"mallory-{number}", absence(long_names(number)), f"ws_{number}")
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 4 << 20
    left = len(memory)
    assert 10 < left < 20
    assert counts.limits.max_agent_bytes.value == 101 - left
    assert counts.limits.max_agents.value == 0
    assert memory.returned("ann") == absence(["global", "topics/a"], [1])
    # the one that is away for the longest goes first
    assert memory.returned("mallory-0") is None
    assert memory.returned("mallory-99") is not None
    assert "ann" not in counts.limits.max_agent_bytes.take_losers()


def test_connection_that_was_many_agents_loses_its_own_bytes(clock: Clock, counts: Counts) -> None:
    """
    Many agents of one connection count together, although each of them has less than others.
    """
    memory = make_memory(clock, counts, max_agent_bytes=1 << 20)
    memory.left("ann", absence(long_names(0)), "ws_ann")
    for number in range(100):
        memory.left(f"mallory-{number}", absence(long_names(number)[:100]), "ws_mallory")
    assert memory.returned("ann") is not None
    assert memory.returned("mallory-0") is None


def test_agent_that_is_too_large_by_itself(clock: Clock, counts: Counts) -> None:
    """
    It is forgotten with its deliveries, which count as given up.
    """
    memory = make_memory(clock, counts, max_agent_bytes=1000)
    memory.left("ann", absence(["\u00e9" * 70], [1, 2]), "ws_ann")
    assert (len(memory), memory.kept, memory.absent, counts.deliveries.given_up) == (1, 2, 1, 0)
    memory.returned("ann")
    memory.left("ann", absence(["\u00e9" * 80], [1, 2]), "ws_ann")
    assert (len(memory), memory.kept, memory.absent, counts.deliveries.given_up) == (0, 0, 0, 2)
    assert memory.returned("ann") is None
