"""
Agents that come back in odd ways.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.fakes import Client, make_core


def test_replayed_event_is_not_acknowledged_by_that(clock: Clock) -> None:
    """
    An event that a returning agent heard live before it authenticated counts as acknowledged when it says so, and once.
    """
    core = make_core(clock)
    first = Client(core)
    first.auth("lara")
    first.leave()
    second = Client(core)
    event_id = Client(core).say(type="publish", channel="global", event="task.created", id=1)[-1]["message_id"]
    second.auth("lara")

    assert core.counts.deliveries.acked == 0
    second.say(type="ack", message_id=event_id)
    assert core.counts.deliveries.acked == 1
    assert list(second.session.owed) == []


def test_event_is_kept_once(clock: Clock) -> None:
    """
    An event that is owed and still to be replayed when the connection ends is kept once.
    """
    core = make_core(clock)
    first = Client(core)
    first.auth("lara")
    first.leave()
    second = Client(core)
    Client(core).say(type="publish", channel="global", event="task.created")
    second.peer.replay = lambda frames: None  # type: ignore[method-assign]  # it reads nothing
    second.auth("lara")
    second.leave()

    assert core.memory.kept == 1


def test_authenticating_again_and_again_stays_within_the_limit(clock: Clock) -> None:
    """
    However many agents and sessions a client names one after the other, it has the channels of the last ones, and two
    channels beyond the limit at the most.
    """
    core = make_core(clock, max_subscriptions=3)
    client = Client(core)
    for channel in ("topics/a", "topics/b"):
        client.say(type="subscribe", channel=channel)
    for n in range(50):
        session = f"s{n}" if n % 3 else None
        client.auth("lara" if n % 2 else "tom", session_id=session)
        own = {f"agents/{client.session.agent}"} | ({f"sessions/{session}"} if session else set())
        assert set(core.registry.channels(client.session)) == {"global", "topics/a", "topics/b"} | own


def test_former_sessions_stay_below_the_limit(clock: Clock) -> None:
    """
    A client that names another session keeps the channel of the first, as long as there is room.
    """
    client = Client(make_core(clock, max_subscriptions=4))
    for session in ("a", "b", "c"):
        answer = client.auth("lara", session_id=session)[0]
    assert answer["subscriptions"] == ["agents/lara", "global", "sessions/a", "sessions/c"]
