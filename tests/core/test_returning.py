"""
Agents that come back in odd ways.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.fakes import Client, make_hub


def test_replayed_event_is_not_acknowledged_by_that(clock: Clock) -> None:
    """
    An event that a returning agent heard live before it authenticated counts as acknowledged when it says so, and once.
    """
    hub = make_hub(clock)
    first = Client(hub)
    first.auth("lara")
    first.leave()
    second = Client(hub)
    event_id = Client(hub).say(type="publish", channel="global", event="task.created", id=1)[-1]["message_id"]
    second.auth("lara")

    assert hub.deliveries.acked == 0
    second.say(type="ack", message_id=event_id)
    assert hub.deliveries.acked == 1
    assert list(second.session.owed) == []


def test_event_is_kept_once(clock: Clock) -> None:
    """
    An event that is owed and still to be replayed when the connection ends is kept once.
    """
    hub = make_hub(clock)
    first = Client(hub)
    first.auth("lara")
    first.leave()
    second = Client(hub)
    Client(hub).say(type="publish", channel="global", event="task.created")
    second.peer.replay = lambda frames: None  # type: ignore[method-assign]  # it reads nothing
    second.auth("lara")
    second.leave()

    assert hub.memory.kept == 1


def test_authenticating_again_and_again_stays_within_the_limit(clock: Clock) -> None:
    """
    However many sessions a client names one after the other, it has two channels beyond the limit at the most.
    """
    hub = make_hub(clock, max_subscriptions=4)
    client = Client(hub)
    for n in range(50):
        client.auth("lara", session_id=f"s{n}")

    assert len(hub.registry.channels(client.session)) == 6
    assert hub.limits["maxSubscriptions"] > 0
