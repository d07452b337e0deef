"""
The log in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.core.entries import Draft, Entry, Page, Published
from dcm_ws.core.log import MemoryLog
from dcm_ws.protocol.channels import Channels
from tests.examples import examples

ALL = {"global": 0}


def make(
    clock: Clock,
    *,
    keep: float = 60.0,
    max_events: int = 1000,
    max_bytes: int = 1 << 20,
    crowded: Callable[[str, int], object] | None = None,
) -> MemoryLog:
    return MemoryLog("e1", clock.seconds, keep=keep, max_events=max_events, max_bytes=max_bytes, crowded=crowded)


def add(
    log: MemoryLog, channel: str = "topics/t", publisher: str = "ann", *, size: int = 10, mirrored: bool = True
) -> Entry:
    where = Channels().parse(channel)
    mirrored = mirrored and where.mirrored
    event_id = f"msg_{log.head + 1}"
    draft = Draft(event_id, where, "x.y", b"1" * size, 0, b"", channel, "x", True, mirrored, publisher)
    published = Published(event_id)
    log.append(draft, published)
    assert published == Published(event_id, log.head)
    entry = page(log, log.head - 1, {channel: 0}).entries[-1]
    assert entry.pos == published.pos
    return entry


def page(log: MemoryLog, after: int, channels: dict[str, int], most: int = 10_000) -> Page:
    """
    The page that the log is ready with at once.
    """
    pages: list[Page | None] = []
    log.page(after, channels, most, pages.append)
    (only,) = pages
    assert only is not None
    return only


def read(log: MemoryLog, after: int = 0, most: int = 10_000, **since: int) -> list[int]:
    channels = {name.replace("_", "/"): pos for name, pos in since.items()} or ALL
    return [entry.pos for entry in page(log, after, channels, most).entries]


def test_positions_are_dense_and_begin_at_one(clock: Clock) -> None:
    """
    Each event gets the next position; an empty log has none.
    """
    log = make(clock)
    assert (log.head, log.first, len(log)) == (0, 1, 0)
    assert [add(log).pos for _ in range(3)] == [1, 2, 3]
    assert (log.head, log.first, len(log)) == (3, 1, 3)


def test_reader_gets_the_events_of_its_channels(clock: Clock) -> None:
    """
    The subscriber of a channel and of global gets an event of both once; the private one is not mirrored.
    """
    log = make(clock)
    add(log, "topics/a")
    add(log, "sessions/s", mirrored=False)
    add(log, "global")

    assert read(log, topics_a=0) == [1]
    assert read(log, topics_a=0, **{"global": 0}) == [1, 3]
    assert read(log, sessions_s=0, topics_a=0) == [1, 2]
    assert read(log, topics_b=0) == []


def test_frames_of_an_event(clock: Clock) -> None:
    """
    The frame for global names the channel that the event was published to; one that has left the log has none.
    """
    log = make(clock, keep=60.0)
    entry, private = add(log, "topics/a"), add(log, "sessions/s", mirrored=False)

    assert b'"channel":"topics/a"' in entry.frame
    assert b'"channel":"global"' in entry.mirror and entry.mirror.endswith(b',"pos":1,"origin":"topics/a"}')
    assert private.mirror == b""
    clock.advance(61)
    assert not log.expire(5)
    assert entry.frame == entry.mirror == b""


def test_channel_is_read_from_where_it_was_subscribed(clock: Clock) -> None:
    """
    Each channel has a position of its own, after which it is read.
    """
    log = make(clock)
    for channel in ("topics/a", "topics/b", "topics/a", "topics/b"):
        add(log, channel)
    assert read(log, topics_a=1, topics_b=2) == [3, 4]
    assert read(log, 3, topics_a=0, topics_b=0) == [4]
    assert read(log, topics_a=4) == []


def test_page_has_an_end(clock: Clock) -> None:
    """
    No more events come at once than asked for; the next page begins after the last one.
    """
    log = make(clock)
    for _ in range(5):
        add(log)
    assert read(log, 0, 2) == [1, 2]
    assert read(log, 2, 2) == [3, 4]
    assert read(log, 4, 2) == [5]


def test_events_expire(clock: Clock) -> None:
    """
    What has been kept for its time goes, a slice at a time, and a reader that comes too late knows it.
    """
    log = make(clock, keep=60.0)
    add(log, "topics/a")
    add(log, "topics/a")
    clock.advance(30)
    add(log, "topics/b")
    clock.advance(30.5)
    assert log.expire(1)
    assert log.expire(1)
    assert not log.expire(1)
    assert (log.first, len(log), read(log)) == (3, 1, [3])
    assert not log.complete(1, {"topics/a": 0})
    assert log.complete(2, {"topics/a": 0})
    assert log.complete(0, {"topics/a": 2})
    assert log.complete(0, {"topics/b": 0})
    assert not log.complete(0, ALL)
    clock.advance(30)
    assert not log.expire(5)
    assert (log.first, len(log), log.bytes) == (4, 0, 0)


def test_the_largest_share_loses_first(clock: Clock) -> None:
    """
    A publisher who fills the log pushes out its own events, and nobody else's.
    """
    lost: Counter[str] = Counter()
    log = make(clock, max_bytes=100_000, crowded=lambda publisher, number: lost.update({publisher: number}))
    add(log, "agents/victim", "bob", mirrored=False)
    for _ in range(1000):
        add(log, "topics/nobody", "mallory", size=1000)
    assert log.bytes <= 100_000
    assert lost["mallory"] == lost.total() > 900
    assert read(log, agents_victim=0) == [1]
    assert log.complete(0, {"agents/victim": 0})
    assert not log.complete(0, {"topics/nobody": 0})
    # those that are left are the youngest
    assert read(log, topics_nobody=0)[-1] == 1001


def test_number_of_events_is_limited(clock: Clock) -> None:
    """
    Many small events are pushed out like few large ones, by number, and by share.
    """
    log = make(clock, max_events=160)
    for number in range(400):
        add(log, publisher="ann" if number % 4 else "bob")
    assert 150 <= len(log) <= 160
    kept = [entry.publisher for entry in page(log, 0, ALL).entries]
    assert abs(kept.count("ann") - kept.count("bob")) <= 12


def test_one_event_larger_than_the_log(clock: Clock) -> None:
    """
    An event that does not fit is kept until the next one: it has to be delivered.
    """
    log = make(clock, max_bytes=1000)
    add(log)
    assert add(log, size=2000).frame
    assert read(log) == [2]
    add(log)
    assert (read(log), log.first, log.head) == ([3], 3, 3)
    assert log.complete(2, ALL) and not log.complete(1, ALL)


def test_lost_channels_are_remembered_up_to_a_number(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Beyond that number a gap is told to all, rather than to nobody.
    """
    monkeypatch.setattr("dcm_ws.core.log._CHANNELS_LOST_MAX", 1000)
    log = make(clock, keep=1.0, max_events=3000, max_bytes=1 << 30)
    for number in range(1002):
        add(log, f"topics/{number}", mirrored=False)
    clock.advance(2)
    assert not log.expire(2000)
    assert not log.complete(0, {"topics/other": 0})
    assert log.complete(2, {"topics/other": 0})
    assert not log.complete(900, {"topics/1000": 0})


def test_what_is_gone_takes_no_room(clock: Clock) -> None:
    """
    Events that went in between leave nothing behind in the lists of the log.
    """
    log = make(clock, max_bytes=200_000, max_events=10_000)
    add(log, "topics/victim", "bob")
    for _ in range(5000):
        add(log, "topics/nobody", "mallory", size=500)
    assert len(log._lanes["global"].positions) < 1000
    assert set(log._shares) == {"bob", "mallory"}
    assert read(log)[:1] == [1] and len(read(log)) == len(log)


def test_page_goes_on_after_many_that_are_gone(clock: Clock) -> None:
    """
    A reader gets what comes after a hole that is larger than its page.
    """
    log = make(clock, max_events=128)
    add(log, "topics/v", "bob")
    for _ in range(180):
        add(log, "topics/t", "mallory")
    add(log, "topics/v", "bob")
    assert [read(log, 0, 1), read(log, 1, 1)] == [[1], [182 - len(log) + 2]]
    assert read(log, 1, 1, topics_v=0, topics_t=0) == read(log, 1, 1)


_steps = st.lists(
    st.tuples(
        st.sampled_from(["topics/a", "topics/b", "agents/x", "global"]),
        st.sampled_from(["ann", "bob", "db"]),
        st.integers(0, 400),
        st.integers(0, 20),
    ),
    max_size=120,
)


@settings(max_examples=examples(150), deadline=None)
@given(
    _steps,
    st.integers(0, 130),
    st.dictionaries(st.sampled_from(["topics/a", "topics/b", "agents/x", "global"]), st.integers(0, 130), min_size=1),
)
def test_a_reader_gets_everything_or_knows_better(
    steps: list[tuple[str, str, int, int]], after: int, channels: dict[str, int]
) -> None:
    """
    Read page by page, the log gives exactly the events of the reader's channels, in order; if one is missing, it says
    that it is not complete.
    """
    clock = Clock()
    log = make(clock, keep=100.0, max_events=40, max_bytes=20_000)
    published: list[tuple[int, str]] = []
    for channel, publisher, size, wait in steps:
        clock.advance(wait)
        log.expire(1000)
        published.append((add(log, channel, publisher, size=size, mirrored=channel != "agents/x").pos, channel))
        assert len(log) <= 40
        assert log.bytes <= 20_000
    wanted = [
        pos
        for pos, channel in published
        if any(
            pos > max(after, since) and (name == channel or (name == "global" and channel != "agents/x"))
            for name, since in channels.items()
        )
    ]
    found, at = [], after
    while at < log.head:
        entries, upto, _ = page(log, at, channels, 7)
        found += [entry.pos for entry in entries]
        assert max([at, *found]) <= upto and (entries or upto == log.head)
        at = upto
    assert found == sorted(set(found))
    assert set(found) <= set(wanted)
    if log.complete(after, channels):
        assert found == wanted
    kept = list(log._entries.values())
    assert all(entry.frame for entry in kept)
    assert log.bytes == sum(len(entry.frame) + len(entry.channel) + 400 for entry in kept)


# as the tail of another log


def test_start_at_a_position(clock: Clock) -> None:
    """
    The next event gets the next position; what was there before, and what is before, is gone.
    """
    log = make(clock)
    for _ in range(3):
        add(log)
    log.start_at(1000)
    assert (log.head, log.first, len(log), log.bytes) == (1000, 1001, 0, 0)
    assert add(log).pos == 1001
    assert read(log, 1000) == [1001]
    assert log.complete(1000, {"topics/t": 0})
    assert not log.complete(999, {"topics/t": 0})
    assert page(log, 999, {"topics/t": 0}).lost == 1000
    assert page(log, 0, {"topics/t": 1000}).lost == 0


def test_position_that_nobody_gets(clock: Clock) -> None:
    log = make(clock)
    add(log)
    log.skip_to(log.head + 1)
    add(log)
    assert read(log) == [1, 3]
    log.skip_to(log.head + 1)
    assert page(log, 3, ALL) == Page([], 4, 0)


def test_report(clock: Clock) -> None:
    log = MemoryLog("e1", clock.seconds, keep=60.0, max_events=10, max_bytes=1000, wall_ms=lambda: 5_000)
    assert log.report() == {
        "engine": "memory",
        "state": "up",
        "reason": "",
        "epoch": "e1",
        "head": 0,
        "first": 1,
        "events": 0,
        "bytes": 0,
        "maxBytes": 1000,
        "waiting": 0,
        "waitingBytes": 0,
        "readsWaiting": 0,
        "inboxBytes": 0,
        "partitions": 0,
        "heldSince": None,
        "oldest": None,
        "keep": 60.0,
    }
    add(log)
    clock.advance(2)
    report = log.report()
    assert (report["events"], report["bytes"], report["oldest"]) == (1, log.bytes, 3_000)


def test_report_without_a_wall_clock(clock: Clock) -> None:
    log = make(clock)
    add(log)
    assert log.report()["oldest"] is None
