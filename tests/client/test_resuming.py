"""
What a client resumes: its core, connected to the server's core.
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from tests.client.wire import Wire
from tests.examples import examples
from tests.fakes import Client, make_core

CHANNELS = ("global", "topics/a", "topics/b")
EVENTS = ("task.created", "session.created")


class Publisher:
    """
    Publishes events, and knows where each is in the log.
    """

    def __init__(self, server: Core) -> None:
        self._client = Client(server)
        self._client.auth("publisher")
        self.published: list[tuple[int, str, str]] = []

    def publish(self, channel: str, event: str = "session.created") -> str:
        """
        Publish an event; returns its id.
        """
        (answer,) = [
            message
            for message in self._client.say(type="publish", channel=channel, event=event, id=1)
            if message.get("type") == "ack"
        ]
        self.published.append((answer["pos"], channel, answer["message_id"]))
        return str(answer["message_id"])

    def heard(self, now: float) -> None:
        """
        Show the server a sign of life, as a connection does with everything that it reads.
        """
        self._client.session.heard_at = now


def on(channel: str, origin: str) -> bool:
    """
    Does an event that is published to C{origin} come on C{channel}?
    """
    return channel in (origin, "global")


KINDS: dict[str, dict[str, Any]] = {"agent": {"agent_id": "ann"}, "anonymous": {}, "observer": {"observer": True}}


PUBLISH = st.tuples(st.just("publish"), st.sampled_from(CHANNELS), st.sampled_from(EVENTS))
ALL = [("server", 100), ("replay", 100), ("client", 100)]
STEP = st.one_of(
    PUBLISH,
    PUBLISH,
    st.tuples(st.sampled_from(("server", "client", "replay")), st.integers(1, 3)),
    st.tuples(st.sampled_from(("server", "client", "replay")), st.integers(1, 100)),
    st.tuples(st.just("handle"), st.integers(0, 2)),
    st.tuples(st.just("subscribe"), st.sampled_from(CHANNELS)),
    st.tuples(st.just("time"), st.sampled_from((6, 31))),
)
ROUND = st.tuples(
    st.lists(PUBLISH, max_size=5),
    st.lists(STEP, max_size=15),
    st.sampled_from((("cut",), ("cut",), ("restart",))),
)
"""
What is published before the client connects, what happens then, and how it ends.
"""


@settings(max_examples=examples(200), deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    wanted=st.sets(st.sampled_from(CHANNELS), min_size=1),
    most=st.sampled_from((1000, 1000, 12)),
    first=st.lists(STEP, max_size=15),
    rounds=st.lists(ROUND, min_size=1, max_size=5),
)
@example(
    # an event comes on global after the user has subscribed to it, and before the client has left it
    kind="anonymous",
    wanted={"topics/a", "topics/b"},
    most=1000,
    first=[
        ("publish", "global", "task.created"),
        ("subscribe", "global"),
        ("server", 1),
        ("client", 1),
        ("client", 1),
        ("publish", "global", "task.created"),
    ],
    rounds=[([], [], ("cut",))],
)
def test_any_order(kind: str, wanted: set[str], most: int, first: list[tuple[Any, ...]], rounds: list[Any]) -> None:
    """
    Whenever the connection breaks, and in whatever order messages arrive: each event is shown once, in order, or is in
    a gap; and the position is never beyond an event that has not been handled.
    """
    clock = Clock()
    clock.advance(1000)
    server = make_core(clock, max_events=most)
    publisher = Publisher(server)
    options = {"channels": sorted(wanted), **KINDS[kind]}
    wire = Wire(server, **options)
    handled: set[str] = set()
    # from where on events of a channel have to come
    begins: dict[str, int] = {}
    # up to where they must not
    asked: dict[str, int] = {}
    timely = True

    def check() -> None:
        ids = [event.id for event in wire.shown]
        assert len(ids) == len(set(ids)), "shown twice"
        for event in wire.shown:
            assert event.tracked or (event.pos or 1 << 62) > asked.get(event.channel, 0), "from before the subscription"
        state = wire.client.places.state(wire.client.events.unhandled)
        for channel, place in () if state is None else state[1].items():
            for pos, origin, name in publisher.published:
                if channel in begins and begins[channel] < pos <= place and on(channel, origin):
                    in_gap = any(gap.pos is not None and pos <= gap.pos for gap in wire.gaps)
                    assert name in handled | wire.handled or in_gap, (channel, pos, place)

    steps = [("connect",), *ALL, *ALL, *ALL, *first, ("cut",)]
    for absent, present, end in rounds:
        steps += [*absent, ("connect",), *present, end]
    for step in steps:
        head = publisher.published[-1][0] if publisher.published else 0
        match step:
            case ("publish", channel, event):
                publisher.publish(channel, event)
            case ("server", number):
                wire.server_reads(number)
            case ("client", number):
                wire.client_reads(number)
            case ("replay", number):
                wire.replay(number)
            case ("handle", number):
                wire.handle(number)
            case ("subscribe", channel):
                if wire.is_connected and channel not in wanted:
                    wanted = {*wanted, channel}
                    # the server subscribes every client to global, for a while
                    asked[channel] = 0 if channel == "global" else head
                    wire.subscribe(channel)
            case ("time", seconds):
                timely = False
                clock.advance(seconds)
                publisher.heard(clock.seconds())
                for _ in (*server.retrying.sweep(), *server.hub.sweep()):
                    pass
                wire.close_if_silent()
            case ("cut",):
                wire.cut()
            case ("connect",):
                wire.connect()
            case ("restart",):
                handled |= wire.handled
                gaps = wire.gaps
                wire = wire.restart(**options | {"channels": sorted(wanted)})
                wire.gaps += gaps
        for channel in wire.client.places.channels:
            if channel in wanted:
                begins.setdefault(channel, head)
        if "global" not in wire.client.places.channels:
            # the server had subscribed the client, which left before it subscribed for its user
            begins.pop("global", None)
        check()
    wire.connect()
    wire.finish()
    check()
    shown = {event.id for event in wire.shown} | handled
    in_gap = max((gap.pos or 0 for gap in wire.gaps), default=0)
    for pos, origin, name in publisher.published:
        due = any(begins[channel] < pos and on(channel, origin) for channel in begins if channel in wanted)
        assert not due or name in shown or pos <= in_gap, ("missing", pos)
    # redelivered events may come before older ones that are replayed
    for channel in options["channels"] if timely else ():
        places = [event.pos for event in wire.shown if event.pos is not None and origin_of(event) == channel]
        assert places == sorted(places), ("out of order", channel)


def origin_of(event: Any) -> str:
    """
    The channel that an event was published to.
    """
    return event.origin or str(event.channel)
