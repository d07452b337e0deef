"""
Events that wait in a file until the service takes them.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.cli import spool as spools
from dcm_ws.cli.http_post import Answer
from dcm_ws.cli.outbox import BATCH_BYTES, BATCH_MAX, Outbox
from dcm_ws.cli.spool import BYTES_MAX, EVENTS_MAX, HOLD_SECONDS, Spool, SpoolError

OK = Answer(200, "")


def _event(number: int, size: int = 0) -> dict[str, Any]:
    return {"channel": "topics/a", "event": "task.created", "data": {"n": number, "x": "x" * size}, "key": f"k{number}"}


def _text(number: int, size: int = 0) -> bytes:
    return json.dumps(_event(number, size), separators=(",", ":")).encode()


class _Service:
    """
    Answers requests, and remembers the events that it took, in order.

    @ivar answer: returns the answer to some events, or an error.
    """

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.taken: list[int] = []
        self.answer: Callable[[list[Any]], Answer | Exception] = lambda events: OK
        self.reports: list[str] = []

    def post(self, body: bytes, seconds: float) -> Answer:
        assert seconds > 0
        parsed = json.loads(body)
        events = parsed if isinstance(parsed, list) else [parsed]
        self.requests.append(len(events))
        answer = self.answer(events)
        if isinstance(answer, Exception):
            raise answer
        if answer == OK:
            self.taken += [event["data"]["n"] for event in events]
        return answer


@pytest.fixture
def service() -> _Service:
    return _Service()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", "name")


@pytest.fixture
def outbox(service: _Service, spool: Spool) -> Outbox:
    return Outbox(service.post, spool, service.reports.append)


def test_private_files(spool: Spool, tmp_path: Path) -> None:
    """
    Only the user may read what waits, whatever the umask; an empty spool is no file.
    """
    former = os.umask(0)
    try:
        spool.add(_text(1))
    finally:
        os.umask(former)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "spool").iterdir()} == {0o600}
    spool.remove(spool.first(1, BYTES_MAX))
    assert not list((tmp_path / "spool").glob("*.jsonl")) and spool.is_empty()


def test_the_oldest_is_dropped(spool: Spool) -> None:
    """
    Beyond the number of events, the oldest are dropped, and counted once.
    """
    for number in range(EVENTS_MAX + 3):
        spool.add(_text(number))
    assert spool.count() == EVENTS_MAX
    assert spool.first(1, BYTES_MAX) == [_text(3)]
    assert (spool.take_dropped(), spool.take_dropped()) == (3, 0)
    assert spool.count() == EVENTS_MAX


def test_bytes_are_limited(spool: Spool, tmp_path: Path) -> None:
    """
    Beyond the number of bytes, the oldest are dropped, and an event that is too large for any spool, too.
    """
    for number in range(5):
        spool.add(_text(number, BYTES_MAX // 4))
    assert spool.count() == 3 and spool.first(1, 1)[0] == _text(2, BYTES_MAX // 4)
    spool.add(_text(9, BYTES_MAX))
    assert spool.count() == 0 and spool.is_empty()
    assert spool.take_dropped() == 6
    assert not list((tmp_path / "spool").glob("*.jsonl"))


def test_what_others_have_written(spool: Spool, tmp_path: Path) -> None:
    """
    Lines that are no events are left out, and a damaged count is none.
    """
    spool.add(_text(1))
    [file] = (tmp_path / "spool").glob("*.jsonl")
    file.write_bytes(b'{"dropped":x}\nrubbish\n' + _text(1) + b"\n\xff\n" + _text(2)[:-3])
    assert spool.first(9, BYTES_MAX) == [_text(1)] and spool.take_dropped() == 0


def test_a_lock_that_is_kept(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If another process keeps the file locked, adding fails after a while instead of waiting.
    """
    spool.add(_text(1))
    monkeypatch.setattr(spools, "LOCK_SECONDS", 0.05)
    with (tmp_path / "spool" / "name.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SpoolError):
            spool.add(_text(2))
    spool.add(_text(2))
    assert spool.count() == 2


def test_published_at_once(outbox: Outbox, service: _Service, tmp_path: Path) -> None:
    """
    If the service answers, nothing is written.
    """
    outbox.publish(_event(1), 1)
    assert service.taken == [1] and not (tmp_path / "spool").exists() and not service.reports


@pytest.mark.parametrize(
    "answer",
    [
        ConnectionRefusedError(111, "refused"),
        TimeoutError(),
        ValueError("no HTTP"),
        Answer(401, "Token expired"),
        Answer(404, ""),
        Answer(429, "slow down"),
        Answer(502, ""),
        Answer(503, "not now"),
        # not from the service: what is in between may let it through later
        Answer(403, ""),
    ],
)
def test_kept_and_sent_later_in_order(
    outbox: Outbox, service: _Service, spool: Spool, answer: Answer | Exception
) -> None:
    """
    What the service cannot take now is kept, and sent before the next event.
    """
    service.answer = lambda events: answer
    for number in (1, 2, 3):
        outbox.publish(_event(number), 1)
    assert spool.count() == 3 and service.reports
    service.answer = lambda events: OK
    outbox.publish(_event(4), 1)
    assert service.taken == [1, 2, 3, 4] and spool.is_empty()


def test_useless_later(outbox: Outbox, service: _Service, spool: Spool) -> None:
    """
    What is of no use later is not kept; what waits is sent nevertheless.
    """
    service.answer = lambda events: ConnectionRefusedError()
    outbox.publish(_event(1), 1, keep=False)
    assert spool.is_empty()
    outbox.publish(_event(2), 1)
    outbox.publish(_event(3), 1, keep=False)
    assert spool.count() == 1
    service.answer = lambda events: OK
    outbox.publish(_event(4), 1, keep=False)
    assert service.taken == [2]


def test_refused_events_are_dropped(outbox: Outbox, service: _Service, spool: Spool) -> None:
    """
    An event that the service refuses for good is dropped and reported, alone and among others.
    """
    service.answer = lambda events: Answer(400, "Invalid event type")
    outbox.publish(_event(1), 1)
    assert spool.is_empty() and "an event was dropped" in service.reports[-1]
    service.answer = lambda events: ConnectionRefusedError()
    for number in range(2, 7):
        outbox.publish(_event(number), 1)
    service.answer = lambda events: (
        Answer(400, "Event 2: no") if any(event["data"]["n"] in (4, 6) for event in events) else OK
    )
    sent = outbox.flush(1)
    assert service.taken == [2, 3, 5] and (sent.published, sent.refused) == (3, 2) and spool.is_empty()


def test_batches(outbox: Outbox, service: _Service, spool: Spool) -> None:
    """
    What waits is sent in batches of limited numbers and bytes; the service's time-out in between leaves the rest.
    """
    for number in range(BATCH_MAX + 10):
        spool.add(_text(number))
    for number in (70, 71, 72):
        spool.add(_text(number, BATCH_BYTES // 2))
    service.answer = lambda events: OK if len(service.requests) < 3 else Answer(429, "slow down")
    sent = outbox.flush(1)
    assert service.requests == [BATCH_MAX, 11, 1] and sent.published == BATCH_MAX + 11
    assert spool.count() == 2
    service.answer = lambda events: OK
    outbox.flush(1)
    assert service.taken == [*range(BATCH_MAX + 10), 70, 71, 72]


def test_no_time_left(outbox: Outbox, service: _Service, spool: Spool) -> None:
    """
    When the time is over, no further request is made.
    """
    spool.add(_text(1))
    outbox.flush(0)
    assert service.requests == [] and spool.count() == 1


def test_one_sends(outbox: Outbox, service: _Service, spool: Spool, tmp_path: Path) -> None:
    """
    While another process sends what waits, events are only added.
    """
    service.answer = lambda events: ConnectionRefusedError()
    outbox.publish(_event(1), 1)
    service.answer = lambda events: OK
    with Spool(tmp_path / "spool", "name").sending() as alone:
        assert alone
        outbox.publish(_event(2), 1)
        assert service.taken == [] and spool.count() == 2
    outbox.publish(_event(3), 1)
    assert service.taken == [1, 2, 3]


def test_added_while_it_sends(outbox: Outbox, service: _Service, spool: Spool) -> None:
    """
    What another process adds while the last batch is sent is sent, too.
    """
    spool.add(_text(1))

    def answer(events: list[Any]) -> Answer:
        if events[0]["data"]["n"] == 1:
            spool.add(_text(2))
        return OK

    service.answer = answer
    outbox.flush(1)
    assert service.taken == [1, 2] and spool.is_empty()


def test_dropped_while_it_sends(outbox: Outbox, service: _Service, spool: Spool) -> None:
    """
    If events are dropped while they are sent, those that were not sent stay.
    """
    for number in range(EVENTS_MAX):
        spool.add(_text(number))

    def answer(events: list[Any]) -> Answer | Exception:
        if len(service.requests) > 1:
            return ConnectionRefusedError()
        for number in range(EVENTS_MAX, EVENTS_MAX + 10):
            spool.add(_text(number))
        return OK

    service.answer = answer
    outbox.flush(5)
    assert spool.first(1, BYTES_MAX) == [_text(BATCH_MAX)] and spool.count() == EVENTS_MAX + 10 - BATCH_MAX


def test_a_slow_service_is_left_alone(outbox: Outbox, service: _Service, spool: Spool, tmp_path: Path) -> None:
    """
    After a time-out, events are only kept for a while, so that not each hook waits.
    """

    def answer(events: list[Any]) -> Exception:
        time.sleep(0.25)
        return TimeoutError()

    service.answer = answer
    outbox.publish(_event(1), 1)
    outbox.publish(_event(2), 1)
    outbox.publish(_event(3), 1, keep=False)
    assert service.requests == [1] and spool.count() == 2
    held = tmp_path / "spool" / "name.held"
    before = time.time() - HOLD_SECONDS - 1
    os.utime(held, (before, before))
    service.answer = lambda events: OK
    outbox.publish(_event(4), 1)
    assert service.taken == [1, 2, 4]
