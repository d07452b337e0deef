"""
A client's position in the log: what it resumes, and what it reports as a gap.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.client import places
from dcm_ws.client.base import _start
from dcm_ws.client.core import ClientCore
from dcm_ws.client.gaps import Gap, Position, gap_of, place_of
from dcm_ws.client.places import Places
from dcm_ws.client.queues import Inbox, Queue
from tests.client.test_core import Side
from tests.client.wire import Wire
from tests.core.clients import stats
from tests.fakes import Client, make_core


def greet(side: Side, pos: int | None = 10, epoch: str = "k1") -> None:
    """
    A connection opens, and the server greets.
    """
    side.connect()
    side.hear(type="connected", client_id="ws_1", timestamp=1, **({} if pos is None else {"epoch": epoch, "pos": pos}))


def ask(side: Side, message: dict[str, Any] | None, **answer: Any) -> dict[str, Any]:
    """
    The client sends a message, and the server accepts it; returns what was sent.
    """
    assert message is not None
    name = side.core.request(message, side.replies.append)
    side.hear(type="ack", id=name, success=True, **answer)
    said: dict[str, Any] = side.said[-1]
    return {key: value for key, value in said.items() if key not in ("type", "id")}


def hear(side: Side, pos: int, channel: str = "global", event: str = "session.created") -> None:
    """
    A logged event comes.
    """
    side.hear(id=f"msg_{pos}", channel=channel, event=event, data=None, timestamp=1, pos=pos)


def cut(side: Side, pos: int = 100, epoch: str = "k1") -> None:
    """
    The connection breaks, and the next one opens.
    """
    side.core.lost(1006, "")
    greet(side, pos, epoch)


def test_positions_of_a_connection() -> None:
    """
    The greeting, events, pings and answers move the position; a lost connection is resumed there.
    """
    side = Side()
    greet(side)
    core = side.core
    assert core.resume() is None and core.places.position(None) == ("k1", 10)
    hear(side, 11)
    ask(side, {"type": "subscribe", "channel": "topics/a"}, epoch="k1", pos=12)
    side.hear(type="ping", timestamp=1, epoch="k1", pos=15)
    # of another log, or not positions
    side.hear(type="ping", timestamp=1, epoch="k2", pos=99)
    side.hear(type="ping", timestamp=1, epoch="k1", pos=True)
    cut(side)
    sent = ask(side, core.resume(), resumed=True, epoch="k1", pos=20, subscriptions=["global", "topics/a"])
    assert sent == {"epoch": "k1", "pos": 15, "channels": ["global", "topics/a"]}
    assert core.resume() is None and side.gaps == []
    assert core.places.position(None) == ("k1", 15)


def test_events_that_come_too_early() -> None:
    """
    What comes on global before the client has resumed is not shown: it comes again, in its place.
    """
    side = Side()
    side.listen()
    greet(side)
    cut(side)
    assert side.core.places.leaving
    hear(side, 100)
    assert side.taken == []
    ask(side, side.core.resume(), resumed=True, epoch="k1", pos=100, subscriptions=["global"])
    # redelivered before the replay has come so far
    hear(side, 100)
    hear(side, 50)
    assert side.core.places.position(None) == ("k1", 50)
    assert [event.pos for event, _ in side.taken] == [100, 50]


def test_repeated_events_do_not_move_the_position() -> None:
    """
    A redelivered event comes out of turn.
    """
    side = Side()
    side.listen()
    greet(side)
    hear(side, 20, event="task.created")
    cut(side)
    side.core.places.load("k1", {"global": 10})
    side.core.lost(1006, "")
    greet(side)
    ask(side, side.core.resume(), resumed=True, epoch="k1", pos=20, subscriptions=["global"])
    hear(side, 20, event="task.created")
    assert side.core.places.position(None) == ("k1", 10)


def test_what_comes_on_an_unwanted_global() -> None:
    """
    What is tracked and comes on global before a client that does not want it has left it is not acknowledged unseen:
    another connection of the agent, or its own channel, may still have to get it.  It is sent again, and shown then.
    """
    clock = Clock()
    clock.advance(1000)
    server = make_core(clock)
    wire = Wire(server, agent_id="ann", channels=["topics/a"])
    publisher = Client(server)
    publisher.say(type="unsubscribe", channel="global")
    wire.connect()
    wire.finish()
    wire.cut()
    wire.connect()
    wire.client_reads()
    for channel in ("topics/a", "topics/b"):
        publisher.say(type="publish", channel=channel, event="task.created", data=channel)
    wire.finish()
    tracked = [event.data for event in wire.shown if event.tracked]
    assert tracked == ["topics/a"]
    assert stats(server)["pendingDeliveries"] == 1
    clock.advance(6)
    list(server.retrying.sweep())
    wire.finish()
    again = wire.shown[-1]
    assert (again.channel, again.origin) == ("global", "topics/b")
    assert stats(server)["pendingDeliveries"] == 0


@pytest.mark.parametrize("reason", ["epoch", "expired", "ahead"])
def test_gaps(reason: str) -> None:
    """
    A client that cannot resume reports a gap, and goes on from the end of the log.
    """
    side = Side()
    greet(side)
    epoch = "k2" if reason == "epoch" else "k1"
    cut(side, 100, epoch)
    gap = {"reason": reason, "first": 90}
    ask(side, side.core.resume(), resumed=False, gap=gap, epoch=epoch, pos=100, subscriptions=["global"])
    assert side.gaps == [Gap(reason, 90, epoch, 100)]
    assert str(side.gaps[0]).startswith("events may be missing: the ")
    assert (side.core.resume(), side.core.places.position(None)) == (None, (epoch, 100))


def test_events_of_another_log() -> None:
    """
    When the log changes, events of before do not hold up the position, and new events of global are not left out.
    """
    side = Side()
    side.listen()
    greet(side)
    hear(side, 20)
    assert side.core.events.unhandled == 20
    cut(side, 5, "k2")
    assert not side.core.places.leaving
    hear(side, 6)
    gap = {"reason": "epoch", "first": 1}
    ask(side, side.core.resume(), resumed=False, gap=gap, epoch="k2", pos=6, subscriptions=["global"])
    assert side.core.events.unhandled is None
    assert side.core.places.position(None) == ("k2", 6)


def test_gap_of_a_live_client() -> None:
    """
    A gap may come at any time; it does not move the position, unless the log is another one.
    """
    side = Side()
    greet(side)
    side.hear(type="gap", reason="expired", first=50, epoch="k1", pos=60)
    assert side.core.places.position(None) == ("k1", 10)
    side.hear(type="gap", reason="epoch", first=1, epoch="k2", pos=3)
    assert side.core.places.position(None) == ("k2", 3)
    assert [gap.reason for gap in side.gaps] == ["expired", "epoch"]
    side.hear(type="gap")
    assert side.gaps[-1] == Gap("")
    assert str(side.gaps[-1]) == "events may be missing: "
    assert gap_of(None, {}) == Gap("") and place_of({"epoch": "", "pos": 1}) == (None, 0)


def test_servers_without_positions() -> None:
    """
    With a server that has no positions, nothing is resumed; if it had some before, there is a gap.
    """
    side = Side()
    greet(side, None)
    hear(side, 5)
    ask(side, {"type": "subscribe", "channel": "topics/a"})
    assert (side.core.resume(), side.core.places.position(None), side.gaps) == (None, None, [])
    ask(side, side.core.auth("t"), subscriptions=["global"])
    cut(side)
    assert side.core.places.position(None) == ("k1", 100)
    side.core.lost(1006, "")
    greet(side, None)
    assert (side.core.resume(), side.core.places.state(None), side.gaps) == (None, None, [Gap("epoch")])


def test_authentication_resumes() -> None:
    """
    What is resumed goes with the authentication; C{durable} goes with each.
    """
    side = Side(agent_id="ann", durable=True)
    greet(side)
    sent = ask(side, side.core.auth(None), epoch="k1", pos=12, subscriptions=["agents/ann", "global"])
    assert sent == {"agent_id": "ann", "durable": True}
    cut(side)
    group = {"epoch": "k1", "pos": 12, "channels": ["global", "agents/ann"]}
    message = side.core.auth(None)
    assert message == {"type": "auth", "agent_id": "ann", "durable": True, "resume": group}
    assert side.core.auth(None, resume=False) == {"type": "auth", "agent_id": "ann", "durable": True}
    ask(side, message, resumed=True, epoch="k1", pos=100, subscriptions=["agents/ann", "global", "topics/restored"])
    assert side.core.places.state(None) == ("k1", {"agents/ann": 12, "global": 12, "topics/restored": 100})
    # another answer no longer has a channel
    restored = {"epoch": "k1", "pos": 100, "subscriptions": ["agents/ann", "global"]}
    side.hear(type="ack", id=None, success=True, **restored)
    assert set(side.core.places.channels) == {"agents/ann", "global"}


def test_token_in_the_url() -> None:
    """
    The server authenticates a client whose URL has a token without being asked.
    """
    side = Side()
    greet(side)
    side.hear(type="ack", id=None, success=True, epoch="k1", pos=11, subscriptions=["agents/ann", "global"])
    assert set(side.core.places.channels) == {"agents/ann", "global"}


def test_channels_at_different_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each channel is resumed from its own position, the oldest first, and messages are not too long.
    """
    monkeypatch.setattr(places, "GROUP_BYTES", 20)
    core = Places()
    core.load("k1", {"topics/a": 5, "topics/b": 3, "topics/c": 3, "topics/d": 3})
    core.opened()
    groups = []
    while (group := core.next_group()) is not None:
        groups.append((group["pos"], group["channels"]))
        core.answered({"resumed": True, "epoch": "k1", "pos": 9}, group)
    assert groups == [(3, ["topics/b"]), (3, ["topics/c"]), (3, ["topics/d"]), (5, ["topics/a"])]


def test_refused_channels() -> None:
    """
    If channels are refused together, they are resumed one by one; one that is refused alone is a gap.
    """
    side = Side(channels=["topics/a", "topics/b", "topics/c"])
    side.core.places.load("k1", {"topics/a": 5, "topics/b": 5, "topics/c": 5})
    greet(side)
    for channels in (["topics/a", "topics/b", "topics/c"], ["topics/a"]):
        message = side.core.resume()
        assert message is not None and message["channels"] == channels
        side.core.not_resumed(message)
    assert side.gaps == [Gap("refused", epoch="k1")]
    message = side.core.resume()
    assert message is not None and message["channels"] == ["topics/b"]
    side.core.not_resumed(message, everything=True)
    assert side.core.resume() is None and len(side.gaps) == 2


def test_a_refused_global_is_not_ignored() -> None:
    """
    If the client may not resume global, events on it count from then on.
    """
    side = Side()
    side.listen()
    greet(side)
    cut(side)
    message = side.core.resume()
    assert message is not None and side.core.places.leaving
    side.core.not_resumed(message)
    hear(side, 101)
    assert len(side.taken) == 1 and set(side.core.places.channels) == {"global"}


def test_unwanted_channels() -> None:
    """
    Channels that the user has left are not resumed, although the server subscribes the client to them.
    """
    side = Side(channels=["topics/a"])
    greet(side)
    hear(side, 11)
    assert list(side.core.places.channels) == []
    side.core.wants("topics/b", True)
    ask(side, {"type": "subscribe", "channel": "topics/b"}, epoch="k1", pos=12)
    assert list(side.core.places.channels) == ["topics/b"]
    side.core.wants("topics/b", False)
    assert list(side.core.places.channels) == []


def test_an_answer_that_nobody_awaited() -> None:
    """
    A channel whose subscription was not answered in time is known by its first event.
    """
    side = Side()
    greet(side)
    hear(side, 12, "topics/late")
    assert side.core.places.state(None) == ("k1", {"global": 12, "topics/late": 12})


def test_both_frames_of_an_event() -> None:
    """
    An event counts when its last frame has come, where listeners want it on global, too.
    """
    side = Side(channels=["global", "topics/t"])
    side.listen(channel="global")
    greet(side)
    hear(side, 11, "topics/t")
    assert side.core.places.position(None) == ("k1", 10)
    hear(side, 11)
    assert side.core.places.position(None) == ("k1", 11)


@pytest.mark.parametrize(
    ("since", "place"),
    [
        (5, (None, 5)),
        ("5", (None, 5)),
        ("k1.5", ("k1", 5)),
        (Position("k1", 5), ("k1", 5)),
        ("a.b.5", ("a.b", 5)),
    ],
)
def test_where_to_begin(since: Any, place: tuple[str | None, int]) -> None:
    """
    A position is a number, EPOCH.POS or a Position.
    """
    assert _start(since) == place
    assert str(Position("k1", 5)) == "k1.5"


@pytest.mark.parametrize("since", [-1, True, "", "k1.", "x", "k1.x", 1.5, Position("", 5), Position("k1", -1)])
def test_where_one_cannot_begin(since: Any) -> None:
    """
    Anything else is an error that names it.
    """
    with pytest.raises(ValueError, match="not a position"):
        _start(since)


def served(events: int, **choices: Any) -> Any:
    """
    A server whose log has events, and who published them.
    """
    clock = Clock()
    clock.advance(1000)
    server = make_core(clock, **choices)
    publisher = Client(server)
    publisher.auth("publisher")
    for number in range(events):
        publisher.say(type="publish", channel="global", event="session.created", data=number)
    return server


@pytest.mark.parametrize(
    ("start", "shown", "gaps"),
    [
        ((None, 0), [0, 1, 2, 3, 4], []),
        ((None, 3), [3, 4], []),
        (("epoch", 4), [4], []),
        (("other", 4), [0, 1, 2, 3, 4], [Gap("epoch", 1, "epoch", 5)]),
        ((None, 9), [], [Gap("ahead", 1, "epoch", 5)]),
    ],
)
@pytest.mark.parametrize("agent", [None, "ann"])
def test_beginning_at_a_position(start: Any, shown: list[int], gaps: list[Gap], agent: str | None) -> None:
    """
    A client that begins at a position gets what follows; if the log is another one, all of the new one.
    """
    wire = Wire(served(5), start=start, agent_id=agent)
    wire.connect()
    wire.finish()
    assert [event.data for event in wire.shown if event.pos is not None] == shown
    assert wire.gaps == gaps
    wire.cut()
    wire.connect()
    wire.finish()
    assert len([event for event in wire.shown if event.pos is not None]) == len(shown)


def test_beginning_before_the_log() -> None:
    """
    What is not kept any more is a gap, and the rest follows.
    """
    server = served(100, max_events=64)
    wire = Wire(server, start=(None, 2))
    wire.connect()
    wire.finish()
    first = server.log.first
    assert [event.data for event in wire.shown if event.pos is not None] == list(range(first - 1, 100))
    assert wire.gaps == [Gap("expired", first, "epoch", 100)]


def test_beginning_where_the_channel_has_lost_more() -> None:
    """
    If newer events of the channels are missing than the oldest that is kept, the client begins later.
    """
    side = Side(start=(None, 2))
    greet(side)
    for asked in (2, 9, 55, 78, 89, 95, 98, 99):
        message = side.core.resume()
        assert message is not None and message["pos"] == asked
        gap = {"reason": "expired", "first": 10}
        ask(side, message, resumed=False, gap=gap, epoch="k1", pos=100, subscriptions=["global"])
    assert side.gaps == [Gap("expired", 10, "k1", 100)]
    assert (side.core.resume(), side.core.places.position(None)) == (None, ("k1", 100))


def test_nack() -> None:
    """
    An event that is refused is not acknowledged, and listeners get it again.
    """
    side = Side()
    side.listen()
    side.event()
    side.core.nack("msg_1", 0)
    side.taken[0][1](True)
    side.core.nack("msg_unknown", 0)
    # a server without positions does not know it
    assert side.said == []
    greet(side)
    hear(side, 11, event="task.created")
    side.core.nack("msg_11", 1500)
    side.taken[1][1](True)
    assert side.said == [{"type": "nack", "message_id": "msg_11", "delay_ms": 1500}]
    hear(side, 11, event="task.created")
    side.taken[2][1](True)
    assert side.acks == ["msg_11"]


def test_gaps_wait_in_their_place() -> None:
    """
    Queues that want gaps have them between the events.
    """
    side = Side()
    inbox: Inbox[Any] = Inbox(side.core.events, "*", None, lambda: None, gaps=True)
    queue: Queue[Any] = Queue(side.core.events, "*", None, lambda: None)
    assert side.core.events.skip(Gap("epoch"))
    side.event()
    assert side.core.events.waiting == 3
    assert inbox.next() == Gap("epoch")
    event = inbox.next()
    assert event is not None and event.id == "msg_1"
    assert len(queue) == 1
    inbox.end()
    assert not side.core.events.skip(Gap("epoch"))


def test_what_is_not_handled() -> None:
    """
    A failed event holds the position until a later one has been handled.
    """
    side = Side()
    side.listen()
    greet(side)
    for pos in (11, 12, 13):
        hear(side, pos)
    events = side.core.events
    side.taken[1][1](False)
    side.taken[0][1](False)
    assert events.unhandled == 11
    side.taken[2][1](True)
    assert events.unhandled is None


def test_start_is_used_once() -> None:
    """
    Without events the position is unknown until the server greets.
    """
    core = ClientCore(
        agent_id=None,
        session_id=None,
        channels=[],
        fresh_tokens=False,
        queue_max=1,
        random=lambda: 1.0,
        room=lambda: None,
        wall_ms=lambda: 1,
        gap=lambda gap: None,
    )
    core.settled()
    assert core.places.state(None) is None
