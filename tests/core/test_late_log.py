"""
The core behind a log that answers later, in any order, and not always.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.entries import Draft
from dcm_ws.protocol.channels import parse_channel
from tests.core.clients import TASK, joined, only, stats
from tests.core.latelog import LateLog
from tests.fakes import Client, make_core

NOTE: dict[str, Any] = {"type": "publish", "channel": "topics/t", "event": "session.created"}


@pytest.fixture
def core(clock: Clock) -> Core:
    return make_core(clock, log=LateLog)


@pytest.fixture
def log(core: Core) -> LateLog:
    return log_of(core)


def log_of(core: Core) -> LateLog:
    assert isinstance(core.log, LateLog)
    return core.log


def got(client: Client) -> list[tuple[int, Any]]:
    """
    The position and the data of each logged event that the client has received since the last call.
    """
    return [(message["pos"], message["data"]) for message in client.peer.take() if "data" in message]


def foreign(data: bytes, channel: str = "topics/t", publisher: str = " database") -> Draft:
    """
    An event that was not published here.
    """
    where = parse_channel(channel)
    return Draft(
        f"other_{data.decode()}", where, "session.created", data, 0, b"", channel, "session", False, True, publisher
    )


def resume(client: Client, pos: int, *channels: str) -> list[dict[str, Any]]:
    return client.say(type="resume", epoch="epoch", pos=pos, channels=list(channels), id=7)


def returned(core: Core, pos: int, *channels: str) -> Client:
    """
    A client that has resumed, and been told so.
    """
    client = joined(core, quiet=True)
    assert only(resume(client, pos, *channels))["resumed"] is True
    return client


# publishing


def test_ack_of_a_publish_waits_for_the_log(core: Core, log: LateLog) -> None:
    """
    It comes after the event has been delivered; replies to what was sent later overtake it.
    """
    reader, publisher = joined(core, "topics/t", quiet=True), joined(core, quiet=True)
    assert publisher.say(**NOTE, data="a", id=1) == []
    assert only(publisher.say(type="ping"))["type"] == "pong"
    assert got(reader) == []

    log.commit()
    assert got(reader) == [(1, "a")]
    assert publisher.peer.take() == []
    log.answer()
    ack = only(publisher.peer.take())
    assert (ack["id"], ack["success"], ack["pos"]) == (1, True, 1)


def test_publish_without_an_id_has_no_ack(core: Core, log: LateLog) -> None:
    publisher = joined(core, quiet=True)
    publisher.say(**NOTE, data="a")
    log.settle()

    assert publisher.peer.take() == []


@pytest.mark.parametrize("request_id", [{"id": 1}, {}], ids=["with an id", "without"])
def test_event_that_cannot_be_logged(core: Core, log: LateLog, request_id: dict[str, Any]) -> None:
    """
    The publisher learns that the event was not published, and nobody gets it.
    """
    reader, publisher = joined(core, "topics/t"), joined(core, quiet=True)
    before = stats(core)
    publisher.say(**NOTE, data="a", **request_id)
    log.refuse()

    told = only(publisher.peer.take())
    assert (told["code"], told.get("id")) == ("NOT_AVAILABLE", request_id.get("id"))
    log.settle()
    assert got(reader) == []
    after = stats(core)
    assert after["events"] == before["events"]
    assert after["refusals"]["NOT_AVAILABLE"] == 1
    assert log.head == 0


def test_log_that_lets_too_many_wait_refuses_at_once(core: Core, log: LateLog) -> None:
    log.most_waiting = 1
    publisher = joined(core, quiet=True)
    publisher.say(**NOTE, data="a", id=1)

    refusal = only(publisher.say(**NOTE, data="b", id=2))
    assert (refusal["id"], refusal["success"]) == (2, False)
    assert core.router.notified('{"channel":"topics/t","event":"session.created","data":1}')
    log.settle()
    assert only(publisher.peer.take())["pos"] == 1


def test_events_come_in_the_order_of_positions(core: Core, log: LateLog) -> None:
    """
    Whoever published them, and in whatever order the publishers are answered.
    """
    reader, publisher = joined(core, "topics/t", quiet=True), joined(core, quiet=True)
    for number in range(3):
        publisher.say(**NOTE, data=number, id=number + 1)
    log.commit(2)
    log.hear(foreign(b"7"))
    log.commit(0)
    log.commit(0)
    log.answer(1)
    log.answer(0)
    log.answer(0)

    assert got(reader) == [(1, 2), (2, 7), (3, 0), (4, 1)]
    assert [(m["id"], m["pos"]) for m in publisher.peer.take()] == [(1, 3), (3, 1), (2, 4)]
    assert stats(core)["events"]["database"] == 1


def test_publisher_leaves_before_the_answer(core: Core, log: LateLog) -> None:
    """
    The event is published; nothing is sent to the connection.
    """
    reader = joined(core, "topics/t", quiet=True)
    publishers = [joined(core, quiet=True) for _ in range(2)]
    for publisher in publishers:
        publisher.say(**NOTE, data="a", id=1)
        publisher.leave()
    log.commit()
    log.answer()
    log.refuse()

    assert got(reader) == [(1, "a")]
    assert [publisher.peer.take() for publisher in publishers] == [[], []]


def test_service_stops_before_the_answer(core: Core, log: LateLog) -> None:
    """
    What was accepted before is answered; what comes then is refused.
    """
    publisher = joined(core, quiet=True)
    publisher.say(**NOTE, data="a", id=1)
    core.hub.drain()
    assert only(publisher.say(**NOTE, data="b", id=2))["success"] is False
    log.settle()

    assert only(publisher.peer.take())["pos"] == 1


def test_events_of_the_database_and_of_the_service(core: Core, log: LateLog) -> None:
    """
    They are delivered when they are in the log, or not at all.
    """
    reader = joined(core, "topics/t", quiet=True)
    core.router.notified('{"channel":"topics/t","event":"session.created","data":1}')
    core.router.announce(parse_channel("topics/t"), "session.created", 2)
    core.application_hub.publish(parse_channel("topics/t"), "session.created", b"3")
    core.router.notified('{"channel":"topics/t","event":"session.created","data":4}')
    assert got(reader) == []
    log.refuse(3)
    log.settle()

    assert got(reader) == [(1, 1), (2, 2), (3, 3)]
    assert stats(core)["events"] == {"client": 1, "database": 1, "badNotifications": 0}


def test_events_that_are_not_logged_do_not_wait(core: Core, log: LateLog) -> None:
    """
    They go on if the log does not.
    """
    client = joined(core)
    client.say(**NOTE, data="a")
    told = client.say(**NOTE | {"channel": "global", "event": "system.info"}, data="b", id=2)

    assert [message.get("data", message.get("id")) for message in told] == ["b", 2]
    assert len(log.appends) == 1


def test_key_of_a_publish_that_waits(core: Core, log: LateLog) -> None:
    """
    Another publish with the key waits for the same answer.
    """
    reader, publisher = joined(core, "topics/t", quiet=True), joined(core, quiet=True)
    for number in range(3):
        assert publisher.say(**NOTE, data=number, id=number + 1, key="k") == []
    assert len(log.appends) == 1
    log.settle()
    assert got(reader) == [(1, 0)]
    acks = publisher.peer.take()
    assert {ack["message_id"] for ack in acks} == {acks[0]["message_id"]}
    assert sorted((ack["id"], ack["pos"], ack.get("duplicate")) for ack in acks) == [
        (1, 1, None),
        (2, 1, True),
        (3, 1, True),
    ]
    assert only(publisher.say(**NOTE, data="b", id=4, key="k"))["duplicate"] is True


def test_key_of_a_publish_that_is_refused(core: Core, log: LateLog) -> None:
    """
    It is not used, so the publisher can repeat what was refused.
    """
    publisher = joined(core, quiet=True)
    for number in range(2):
        publisher.say(**NOTE, id=number, key="k")
    log.refuse()
    assert [message["success"] for message in publisher.peer.take()] == [False, False]

    publisher.say(**NOTE, id=3, key="k")
    log.settle()
    ack = only(publisher.peer.take())
    assert ack["pos"] == 1 and "duplicate" not in ack


# the seam


def test_subscribing_before_the_event_is_delivered(core: Core, log: LateLog) -> None:
    """
    It gets the event, although it was published before; who has unsubscribed does not.
    """
    publisher, leaving = joined(core, quiet=True), joined(core, "topics/t", quiet=True)
    publisher.say(**NOTE, data="a")
    reader = joined(core, quiet=True)
    place = only(reader.say(type="subscribe", channel="topics/t", id=1))["pos"]
    leaving.say(type="unsubscribe", channel="topics/t")
    log.settle()

    assert place == 0
    assert got(reader) == [(1, "a")]
    assert got(leaving) == []


def test_resuming_before_the_event_is_delivered(core: Core, log: LateLog) -> None:
    """
    Each event comes once, whichever side of the seam it is on.
    """
    log.tail = 10
    log.hear(foreign(b"1"))
    log.hear(foreign(b"2"))
    publisher = joined(core, quiet=True)
    publisher.say(**NOTE, data=3)
    reader = joined(core, quiet=True)
    ack, *replayed = resume(reader, 1, "topics/t")
    assert (ack["pos"], [message["pos"] for message in replayed]) == (2, [2])
    log.settle()

    assert got(reader) == [(3, 3)]


def test_agent_away_when_its_event_is_delivered(core: Core, log: LateLog) -> None:
    """
    It was there when the event was published, and gets it when it returns, once.
    """
    log.tail = 10
    agent, publisher = joined(core, "topics/t", agent="ann", quiet=True), joined(core, quiet=True)
    publisher.say(**TASK, data="a")
    agent.leave()
    log.commit()
    publisher.say(**TASK, data="b")
    back = joined(core, quiet=True)
    back.auth("ann")
    log.settle()

    assert [m["data"] for m in back.peer.take() if m.get("event") == "task.created"] == ["b"]
    assert list(back.session.owed) != []
    assert len(back.session.owed) == 2


def test_closed_subscriber_gets_nothing(core: Core, log: LateLog) -> None:
    reader, publisher = joined(core, "topics/t"), joined(core, quiet=True)
    publisher.say(**TASK, data="a")
    reader.leave()
    log.settle()

    assert reader.peer.take() == []
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 0


# pages


def filled(log: LateLog, count: int, channel: str = "topics/t") -> None:
    for _ in range(count):
        log.hear(foreign(str(log.head + 1).encode(), channel))


def test_page_that_is_ready_later(core: Core, log: LateLog) -> None:
    """
    Nothing comes until then, and what is published in the meantime comes after it.
    """
    filled(log, 3)
    reader = returned(core, 1, "topics/t")
    reader.peer.read()
    filled(log, 1)
    assert got(reader) == []
    log.read()
    reader.peer.read()
    assert [pos for pos, _ in got(reader)] == [2, 3]
    assert reader.session.behind is not None
    log.read()
    filled(log, 1)
    reader.peer.read()
    assert [pos for pos, _ in got(reader)] == [4]
    log.read()
    reader.peer.read()
    assert reader.session.behind is None
    filled(log, 1)
    assert [pos for pos, _ in got(reader)] == [5, 6]


def test_page_without_entries(core: Core, log: LateLog) -> None:
    """
    The client goes on from its end, and gets events directly again.
    """
    filled(log, 3, "topics/other")
    log.tail = -1
    reader = returned(core, 1, "topics/t")
    filled(log, 1, "topics/other")
    log.read()
    reader.peer.read()
    assert (log.pages[0].after, log.pages[0].head) == (3, 4)
    log.read()
    reader.peer.read()
    filled(log, 1)

    assert [pos for pos, _ in got(reader)] == [5]


def test_peer_looks_again_when_the_log_has_answered(core: Core, log: LateLog) -> None:
    """
    The connection is told when a page it waits for is there; not when it could not be read.
    """
    filled(log, 3)
    reader = returned(core, 1, "topics/t")
    assert reader.peer.looks == 0
    log.read(fails=True)
    assert reader.peer.looks == 0
    reader.peer.read()
    log.read()
    assert reader.peer.looks == 1
    reader.peer.read()
    assert [pos for pos, _ in got(reader)] == [2, 3]


def test_page_that_cannot_be_read(core: Core, log: LateLog) -> None:
    """
    It is asked for again at the next look of the connection.
    """
    filled(log, 3)
    reader = returned(core, 1, "topics/t")
    for _ in range(3):
        log.read(fails=True)
        assert log.pages == []
        reader.peer.read()
    log.read()
    reader.peer.read()

    assert [pos for pos, _ in got(reader)] == [2, 3]
    assert reader.session.behind is None


def test_page_for_a_client_that_has_left(core: Core, log: LateLog) -> None:
    filled(log, 3)
    readers = [returned(core, 1, "topics/t") for _ in range(2)]
    for reader in readers:
        reader.leave()
    log.read()
    log.read(fails=True)
    for reader in readers:
        reader.peer.read()

    assert [reader.peer.take() for reader in readers] == [[], []]
    assert not core.clients.behind


def test_unsubscribing_while_a_page_is_read(core: Core, log: LateLog) -> None:
    """
    Nothing of the channel comes any more.
    """
    filled(log, 2)
    filled(log, 2, "topics/u")
    reader = returned(core, 1, "topics/t", "topics/u")
    reader.say(type="unsubscribe", channel="topics/t")
    filled(log, 1)
    log.read()
    reader.peer.read()
    log.settle()
    reader.peer.read()

    assert [pos for pos, _ in got(reader)] == [3, 4]


def test_subscribing_while_a_page_is_read(core: Core, log: LateLog) -> None:
    """
    The page ends before the subscription begins, so nothing of the new channel is skipped.
    """
    filled(log, 2)
    reader = returned(core, 1, "topics/t")
    reader.say(type="subscribe", channel="topics/u")
    filled(log, 1, "topics/u")
    filled(log, 1)
    log.read()
    reader.peer.read()
    log.read()
    reader.peer.read()

    assert [pos for pos, _ in got(reader)] == [2, 3, 4]


def test_resuming_again_while_a_page_is_read(core: Core, log: LateLog) -> None:
    """
    The page that was asked for before is not used, whenever it is ready.
    """
    filled(log, 4, "topics/u")
    filled(log, 4)
    reader = returned(core, 6, "topics/t")
    assert only(resume(reader, 2, "topics/u"))["resumed"] is True
    reader.peer.read()
    log.read(1)
    log.read()
    reader.peer.read()

    assert [pos for pos, _ in got(reader)] == [3, 4, 7, 8]
    assert reader.session.behind is None


def test_events_leave_the_log_while_a_page_is_read(clock: Clock) -> None:
    """
    The client is told of the gap once, and gets the rest.
    """
    core = make_core(clock, log=LateLog, max_events=10)
    log = log_of(core)
    filled(log, 4)
    reader = returned(core, 1, "topics/t")
    filled(log, 10)
    log.settle()
    reader.peer.read()
    log.settle()
    reader.peer.read()

    gap, *rest = reader.peer.take()
    assert (gap["type"], gap["reason"]) == ("gap", "expired")
    assert [message["pos"] for message in rest] == list(range(log.first, 15))


def test_full_client_waits_for_a_page(clock: Clock) -> None:
    """
    What is too much to be in flight is read in the log, when there is room again.
    """
    core = make_core(clock, log=LateLog, max_pending=2)
    log = log_of(core)
    log.tail = -1
    reader, publisher = joined(core, "topics/t", quiet=True), joined(core, quiet=True)
    for number in range(4):
        publisher.say(**TASK, data=number)
    log.settle()
    events = [message for message in reader.peer.take() if "event" in message]
    assert len(events) == 2
    for _ in range(6):
        for event_id in list(reader.session.owed):
            reader.say(type="ack", message_id=event_id)
        log.settle()
        reader.peer.read()
        events += [message for message in reader.peer.take() if "event" in message]

    assert [event["data"] for event in events] == [0, 1, 2, 3]


def test_page_without_events_that_ends_before_the_head(core: Core, log: LateLog) -> None:
    """
    A page has nothing for the client, and events came while it was read: the client goes on from its end.
    """
    for number in (b"1", b"2"):
        log.hear(foreign(number, channel="topics/other"))
    client = returned(core, 0, "topics/t")
    log.hear(foreign(b"3"))
    log.read()
    client.peer.read()
    while log.pages:
        log.read()
        client.peer.read()

    assert got(client) == [(3, 3)]
    assert core.clients.behind == set()


def test_short_pages_that_are_ready_at_once(core: Core, log: LateLog) -> None:
    """
    Pages without events for the client follow each other until there is one, or the end.
    """
    log.tail, log.span = 1000, 1
    for number in (b"1", b"2"):
        log.hear(foreign(number, channel="topics/other"))
    log.hear(foreign(b"3"))
    client = joined(core, quiet=True)
    answer, *came = resume(client, 0, "topics/t")
    client.peer.read()

    assert answer["resumed"] is True
    assert [message["data"] for message in came] + [data for _, data in got(client)] == [3]
    assert core.clients.behind == set()


# keys that the log knows


def test_log_receives_the_key(core: Core, log: LateLog) -> None:
    """
    The same for the same publisher and key, another one for others, and none without a key.
    """
    ann, bob = joined(core, quiet=True, agent="ann"), joined(core, quiet=True, agent="bob")
    for publisher, key in ((ann, {"key": "k"}), (bob, {"key": "k"}), (ann, {"key": "l"}), (ann, {})):
        publisher.say(**NOTE, data="a", **key)
    *keys, none = (draft.key for draft, _ in log.appends)
    assert none == ""
    assert {len(key) for key in keys} == {32}
    assert len(set(keys)) == 3
    log.refuse()
    ann.say(**NOTE, data="a", key="k")
    assert log.appends[-1][0].key == keys[0]


def test_log_finds_the_key(core: Core, log: LateLog) -> None:
    """
    All that wait learn of the event of before, and so do those that repeat it later.
    """
    ann = joined(core, quiet=True, agent="ann")
    ann.say(**NOTE, data="a", id=1, key="k")
    ann.say(**NOTE, data="a", id=2, key="k")
    log.again("msg_before", 17)
    answers = [(one["id"], one["message_id"], one["pos"], one["duplicate"]) for one in ann.peer.take()]
    later = only(ann.say(**NOTE, data="a", id=3, key="k"))
    assert sorted(answers) == [(1, "msg_before", 17, True), (2, "msg_before", 17, True)]
    assert (later["message_id"], later["pos"], later["duplicate"]) == ("msg_before", 17, True)
    assert stats(core)["keys"] == {"remembered": 1, "duplicates": 3}
