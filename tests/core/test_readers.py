"""
Readers of the stream of a channel: where they begin, and what they get.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.readers import Batch, FullError, GapError, Place
from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.offsets import BEGINNING, NOW, Offset
from dcm_ws.protocol.replies import logged_event
from dcm_ws.protocol.tokens import sign
from tests.core.clients import joined, stats
from tests.core.latelog import LateLog
from tests.fakes import SECRET, WALL_MS, Client, RecordingPeer, make_core


class Far(RecordingPeer):
    """
    The far end of a reader: it keeps the replay, and takes it when the test says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: Iterator[bytes | None] = iter(())  # type: ignore[assignment]
        self.live: list[tuple[int, Any]] = []

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self.frames = frames

    def send(self, frame: bytes) -> None:
        pos, payload = logged_event(frame)
        self.live.append((pos, json.loads(payload).get("data") if pos else None))


class Reader:
    """
    A reader of a channel.
    """

    def __init__(
        self,
        core: Core,
        channel: str = "topics/a",
        offset: Offset = BEGINNING,
        *,
        token: str | None = None,
        agent: str | None = None,
        stays: bool = False,
    ) -> None:
        self.core = core
        self.far = Far()
        self.channel = parse_channel(channel)
        self.session: Session = core.callers.admit(token, agent, "192.0.2.1", self.far)
        self.place: Place = core.readers.find(self.session, self.channel, offset)
        core.readers.enter(self.session, self.channel, self.place, stays=stays)

    def batches(self, most: int = 100, most_bytes: int = 1 << 20) -> Iterator[Batch | bool | None]:
        return self.core.readers.batches(self.far.frames, self.place, most=most, most_bytes=most_bytes)

    def read(self, **limits: int) -> tuple[list[list[Any]], Offset]:
        """
        The data of each message, by batch, and the place behind them.
        """
        read = [batch for batch in self.batches(**limits) if isinstance(batch, Batch)]
        assert [batch.is_last for batch in read] == [False] * (len(read) - 1) + [True]
        return [[json.loads(json_)["data"] for _, json_ in batch.messages] for batch in read], read[-1].next


@pytest.fixture
def publisher(core: Core) -> Client:
    return joined(core, quiet=True)


def publish(client: Client, *data: Any, channel: str = "topics/a", event: str = "task.created") -> None:
    for one in data:
        client.say(type="publish", channel=channel, event=event, data=one)


def at(pos: int, epoch: str = "epoch") -> Offset:
    return Offset(epoch, pos)


def test_all_of_a_channel(core: Core, publisher: Client) -> None:
    """
    From the beginning, a reader gets all logged events of its channel, in the order of the log, and nothing else.
    """
    publish(publisher, 1, 2)
    publish(publisher, "other", channel="topics/b")
    publish(publisher, "not logged", event="agent.heartbeat")
    publish(publisher, 3)
    assert Reader(core).read() == ([[1, 2, 3]], at(4))
    assert Reader(core, "topics/b").read() == ([["other"]], at(3))
    assert Reader(core, "global").read() == ([[1, 2, "other", 3]], at(4))


def test_batches_have_limits(core: Core, publisher: Client) -> None:
    """
    A batch has so many messages at most, and none after so many bytes.
    """
    publish(publisher, 1, 2, 3, "x" * 1000, 5)
    assert Reader(core).read(most=2) == ([[1, 2], [3, "x" * 1000], [5]], at(5))
    assert Reader(core).read(most_bytes=1000) == ([[1, 2, 3, "x" * 1000], [5]], at(5))
    assert Reader(core, offset=at(3)).read(most=2) == ([["x" * 1000, 5], []], at(5))


def test_go_on_from_an_offset(core: Core, publisher: Client) -> None:
    """
    A reader that comes back gets what is after its offset, and then new events directly, each once.
    """
    publish(publisher, 1, 2, 3)
    reader = Reader(core, offset=at(1))
    assert reader.read() == ([[2, 3]], at(3))
    publish(publisher, 4)
    publish(publisher, "other", channel="topics/b")
    assert reader.far.live == [(4, 4)]
    core.hub.disconnect(reader.session)
    publish(publisher, 5)
    assert reader.far.live == [(4, 4)]
    assert Reader(core, offset=at(4)).read() == ([[5]], at(6))


def test_what_is_published_meanwhile_comes_from_the_log(core: Core, publisher: Client) -> None:
    """
    Nothing is missing, and nothing twice, at the seam between the log and new events.
    """
    publish(publisher, 1, 2)
    reader = Reader(core)
    batches = reader.batches(most=1)
    first = next(batches)
    publish(publisher, 3)
    rest = [batch for batch in batches if isinstance(batch, Batch)]
    assert isinstance(first, Batch)
    assert [message.pos for batch in (first, *rest) for message in batch.messages] == [1, 2, 3]
    publish(publisher, 4)
    assert reader.far.live == [(4, 4)]


def test_from_now_on(core: Core, publisher: Client) -> None:
    """
    A reader that begins at the end gets only new events, and no replay.
    """
    publish(publisher, 1)
    reader = Reader(core, offset=NOW)
    assert reader.place == Place(at(1), True)
    publish(publisher, 2)
    assert reader.far.live == [(2, 2)]
    assert list(reader.far.frames) == []


def test_empty_stream(core: Core, publisher: Client) -> None:
    """
    A channel without events is an empty stream; its reader is at the end of the log, or where it was.
    """
    assert Reader(core).read() == ([[]], at(0))
    publish(publisher, *range(3), channel="topics/b")
    assert Reader(core).read() == ([[]], at(3))
    assert Reader(core, offset=at(1)).read() == ([[]], at(1))


def test_offsets_go_on_with_the_log(core: Core, publisher: Client) -> None:
    """
    A reader of a channel with few events moves on in steps, so that its place is never too old.
    """
    publish(publisher, 1)
    for _ in range(1100):
        core.application_hub.publish(parse_channel("topics/b"), "session.created", b"null")
    assert Reader(core, offset=at(1)).read() == ([[]], at(1024))
    assert Reader(core).read() == ([[1]], at(1024))
    publish(publisher, 2)
    assert Reader(core, offset=at(1)).read() == ([[2]], at(1102))


def gap(core: Core, offset: Offset, channel: str = "topics/a") -> tuple[str, Offset]:
    with pytest.raises(GapError) as caught:
        Reader(core, channel, offset)
    return caught.value.reason, caught.value.oldest


def test_gaps(clock: Clock) -> None:
    """
    A reader whose offset the log does not reach, or does not know, is told where it can begin.
    """
    core = make_core(clock, max_events=64)
    publisher = joined(core, agent="bob", quiet=True)
    publish(publisher, "early", channel="topics/b")
    for number in range(100):
        core.application_hub.publish(parse_channel("topics/a"), "session.created", b"%d" % number)
    # the publisher of the other channel has lost nothing
    lost = core.log.lost_after(0, {"topics/a": 0})
    assert gap(core, at(3)) == ("expired", at(lost))
    assert gap(core, at(3, "other")) == ("epoch", at(lost))
    assert gap(core, at(3, "other"), "topics/b") == ("epoch", at(0))
    assert gap(core, at(1000)) == ("ahead", at(101))
    (kept,), end = Reader(core, offset=at(lost)).read()
    assert kept == list(range(lost - 1, 100))
    assert end == at(101)
    # from the beginning means from there
    assert Reader(core).read() == ([kept], end)
    assert Reader(core, "topics/b").read() == ([["early"]], at(1))
    assert Reader(core, "topics/b", at(0)).read() == ([["early"]], at(1))


def test_events_lost_while_they_are_read(clock: Clock) -> None:
    """
    If events leave the log before a slow reader has read them, its batches end with nothing.
    """
    core = make_core(clock, max_events=300)
    for number in range(300):
        core.application_hub.publish(parse_channel("topics/a"), "session.created", b"%d" % number)
    batches = Reader(core).batches(most=1)
    assert isinstance(next(batches), Batch)
    for number in range(300):
        core.application_hub.publish(parse_channel("topics/a"), "session.created", b"%d" % number)
    assert list(batches) == [None]


def test_log_that_answers_later(clock: Clock) -> None:
    """
    While the log is read, a batch has what was read before, and others have their turn.
    """
    core = make_core(clock, log=LateLog)
    log = core.log
    assert isinstance(log, LateLog)
    for number in range(2):
        core.application_hub.publish(parse_channel("topics/a"), "session.created", b"%d" % number)
        log.settle()
    reader = Reader(core)
    batches = reader.batches()
    assert next(batches) is False
    log.read()
    batch = next(batches)
    assert isinstance(batch, Batch)
    assert [message.pos for message in batch.messages] == [1, 2]


def test_a_part_of_a_batch_is_not_kept_back(core: Core, publisher: Client) -> None:
    """
    What has been read is handed on before others have their turn.
    """
    publish(publisher, 1)
    reader = Reader(core)
    frame = next(reader.far.frames)
    assert frame is not None
    reader.far.frames = iter((frame, b"", frame, None))
    assert [
        batch if isinstance(batch, bool) else len(batch.messages) for batch in reader.batches() if batch is not None
    ] == [
        1,
        False,
        1,
        True,
        0,
    ]


def test_log_that_is_not_known(core: Core) -> None:
    """
    Until it is found which log there is, a reader has to come back.
    """
    assert isinstance(core.log.is_known, bool)
    core.log.is_known = False  # type: ignore[misc]
    with pytest.raises(ProtocolError) as caught:
        Reader(core)
    assert caught.value.code is ErrorCode.NOT_AVAILABLE
    assert caught.value.retry_after_ms == 1000


def test_offset_of_another_node(core: Core, publisher: Client) -> None:
    """
    A reader may come from a node that had more of the log: then it has to wait.
    """
    publish(publisher, 1)
    readers = core.readers
    answers: list[bool] = []
    assert not any(readers.is_ahead(offset) for offset in (BEGINNING, NOW, at(0), at(1), at(2, "other")))
    assert readers.is_ahead(at(2))
    readers.reach(at(2), answers.append)
    # there is no other node
    assert answers == [True]
    assert gap(core, at(2)) == ("ahead", at(1))


def test_private_channels(clock: Clock) -> None:
    """
    A reader may read what it may subscribe to, and owes no acks.
    """
    core = make_core(clock, production=True)
    token = sign(SECRET, "one", None, WALL_MS)
    reader = Reader(core, "agents/one", token=token, stays=True)
    assert stats(core)["observers"] == 1
    assert core.clients.authenticated == 1
    core.application_hub.publish(parse_channel("agents/one"), "task.created", b"1")
    assert reader.far.live == [(1, 1)]
    assert reader.session.owed == {}
    core.hub.disconnect(reader.session)
    assert (core.clients.authenticated, core.clients.sessions, len(core.registry)) == (0, set(), 0)


def test_not_authorized(core: Core) -> None:
    """
    In development, the channel of an agent is for those who say that they are it.
    """
    assert Reader(core, "agents/one", agent="one").read() == ([[]], at(0))
    with pytest.raises(ProtocolError) as caught:
        Reader(core, "agents/one", agent="two")
    assert caught.value.code is ErrorCode.NOT_AUTHORIZED


def test_listener_without_a_token(clock: Clock) -> None:
    """
    In production with anonymous listeners, a reader without a token does not get private events on C{global}.
    """
    core = make_core(clock, production=True, anonymous_listeners=True)
    core.application_hub.publish(parse_channel("agents/one"), "task.created", b'"secret"')
    core.application_hub.publish(parse_channel("topics/a"), "task.created", b"1")
    reader = Reader(core, "global")
    assert reader.read() == ([[1]], at(2))
    core.application_hub.publish(parse_channel("sessions/s"), "task.created", b'"secret"')
    core.application_hub.publish(parse_channel("topics/a"), "task.created", b"2")
    assert reader.far.live == [(4, 2)]
    with pytest.raises(ProtocolError):
        Reader(core, "sessions/s")


def test_readers_count_for_the_limit(clock: Clock) -> None:
    """
    A reader that stays takes the room of a connection; one that reads a page does not need any.
    """
    core = make_core(clock, max_connections=1)
    first = Reader(core, stays=True)
    with pytest.raises(FullError):
        Reader(core, stays=True)
    assert core.counts.limits.max_connections.value == 1
    assert Reader(core).read() == ([[]], at(0))
    core.hub.disconnect(first.session)


def test_reset_closes_readers(core: Core) -> None:
    """
    When the log becomes another one, readers are closed like all clients.
    """
    reader = Reader(core, stays=True)
    core.hub.reset()
    list(core.hub.sweep())
    assert reader.far.closed is CloseCode.RESTART


def test_tokens_expire(clock: Clock) -> None:
    """
    With enforced expiry, a reader is closed when its token expires.
    """
    core = make_core(clock, enforce_expiry=True, heartbeat_interval=1e6, heartbeat_timeout=1e6)
    reader = Reader(core, token=sign(SECRET, "one", None, WALL_MS, ttl_ms=5000), stays=True)
    clock.advance(4)
    list(core.hub.sweep())
    assert reader.far.closed is None
    clock.advance(2)
    list(core.hub.sweep())
    assert reader.far.closed is CloseCode.AUTHENTICATION_REQUIRED
