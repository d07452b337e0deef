"""
The log becomes another one while clients are connected.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.entries import Draft
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.errors import CloseCode
from tests.core.clients import TASK, away, joined, only, stats, texts
from tests.core.latelog import LateLog
from tests.core.living import finish, live
from tests.fakes import Client, make_core


@pytest.fixture
def core(clock: Clock) -> Core:
    return make_core(clock, log=LateLog)


@pytest.fixture
def log(core: Core) -> LateLog:
    assert isinstance(core.log, LateLog)
    return core.log


def hear(log: LateLog, data: str) -> int:
    where = parse_channel("topics/t")
    return log.hear(
        Draft(data, where, "task.created", f'"{data}"'.encode(), 0, b"", where.name, "task", True, True, " database")
    )


def test_client_is_told_and_closed(core: Core, log: LateLog) -> None:
    """
    The frame has the place in the new log, from where the client can resume.
    """
    client = joined(core, "topics/t", agent="ann")
    log.renew("other", 50)
    finish(core.hub.sweep())

    assert only(client.peer.take()) == {"type": "gap", "reason": "epoch", "first": 51, "epoch": "other", "pos": 50}
    assert client.peer.closed is CloseCode.RESTART
    assert stats(core)["closes"] == {"1012": 1}
    assert stats(core)["log"]["gaps"] == 1
    hear(log, "a")
    back = joined(core, quiet=True)
    answer, *replayed = back.say(type="resume", epoch="other", pos=50, channels=["topics/t"], id=1)
    assert answer["resumed"] is True
    assert replayed == []
    log.settle()
    back.peer.read()
    assert texts(back.peer.take()) == [("topics/t", "a")]


@pytest.mark.parametrize("message", [{"type": "resume", "id": 1}, {"type": "auth", "agent_id": "ann"}])
def test_client_that_resumes_before_the_log_is_found(core: Core, log: LateLog, message: dict[str, Any]) -> None:
    """
    It is closed, and not told of a gap that it does not have: when it comes back, it goes on where it was.
    """
    log.is_known = False
    position = {"epoch": "known", "pos": 7, "channels": ["topics/t"]}
    early, client = joined(core, quiet=True), joined(core, quiet=True)
    said = {"resume": position} if message["type"] == "auth" else position
    assert client.say(**message, **said) == []
    assert client.peer.closed is CloseCode.RESTART
    log.renew("known", 7)
    log.is_known = True
    finish(core.hub.sweep())
    assert (early.peer.take(), early.peer.closed) == ([], CloseCode.RESTART)
    back = joined(core, quiet=True)
    assert back.say(**message, **said)[0]["resumed"] is True


def test_client_that_is_not_closed_yet(core: Core, log: LateLog) -> None:
    """
    It gets no events of the new log, and what it sends has no effect.
    """
    client, behind = joined(core, "topics/t", agent="ann"), joined(core, "topics/t", agent="bob")
    behind.session.durable = True
    log.hear(Draft("x", parse_channel("topics/t"), "task.created", b"0", 0, b"", "topics/t", "task", True, True, "x"))
    behind.peer.unsent = True
    log.renew("other", 0)
    client.peer.take(), behind.peer.take()
    hear(log, "a")
    assert client.say(type="subscribe", channel="topics/t", id=1) == []
    assert client.say(**TASK, data=1, id=2) == []
    assert (log.appends, behind.peer.take()) == ([], [])
    finish(core.hub.sweep())
    assert [one["type"] for one in client.peer.take()] == ["gap"]
    assert stats(core)["connectedClients"] == 0


def test_many_clients_are_closed_in_steps(core: Core, log: LateLog) -> None:
    clients = [Client(core) for _ in range(10)]
    log.renew("other", 0)
    assert [client.peer.closed for client in clients] == [None] * 10
    sweep = core.hub.sweep()
    for _ in range(4):
        next(sweep)
    assert sum(client.peer.closed is not None for client in clients) == 4
    # one whose connection is lost meanwhile is not looked at any more
    lost = next(client for client in clients if client.peer.closed is None)
    lost.leave()
    # and one that connects is served
    new = joined(core, "topics/t")
    finish(sweep)
    assert sum(client.peer.closed is not None for client in clients) == 9
    assert lost.peer.closed is None
    hear(log, "a")
    assert ("topics/t", "a") in texts(new.peer.take())
    assert stats(core)["connectedClients"] == 1


def test_everything_of_before_is_forgotten(clock: Clock, core: Core, log: LateLog) -> None:
    """
    What was owed is neither sent again nor counted as given up.
    """
    away(core, "gone", 0)
    ann = joined(core, "topics/t", agent="ann", quiet=True)
    hear(log, "a")
    ann.say(type="ack", message_id="a")
    hear(log, "b")
    live(core, clock, 20)
    hear(log, "c")
    core.application_hub.redrive("ann")
    ann.say(**TASK, data=1, key="k", id=1)
    log.commit()
    log.answer()
    waiting = joined(core, quiet=True, agent="bob")
    waiting.say(**TASK, data=1, key="k", id=1)
    given_up = core.counts.deliveries.given_up
    before = stats(core)
    assert (before["keys"]["remembered"], before["deadLetters"]["kept"], before["agents"]["remembered"]) == (1, 1, 1)

    log.renew("other", 0)
    after = stats(core)
    assert core.counts.deliveries.given_up == given_up
    assert after["agents"] == {"connected": 0, "absent": 0, "remembered": 0}
    assert (after["authenticatedClients"], after["observers"], after["activeChannels"]) == (0, 0, 0)
    assert (after["keys"]["remembered"], after["deadLetters"]["kept"], after["pendingDeliveries"]) == (0, 0, 0)
    assert core.deliveries.used == 0
    ann.peer.take()
    live(core, clock, 60)
    assert [one["type"] for one in ann.peer.take()] == ["gap"]
    assert core.counts.deliveries.given_up == given_up
    back = joined(core, quiet=True)
    assert only(back.auth("ann", id=1))["subscriptions"] == ["agents/ann"]


def test_reset_during_a_redelivery(clock: Clock, core: Core, log: LateLog) -> None:
    """
    The pass that is under way ends, whether it sends events again or gives them up.
    """
    for sends in (1, 3):
        clients = [joined(core, "topics/t", quiet=True) for _ in range(3)]
        hear(log, "a")
        for _ in range(sends - 1):
            clock.advance(6)
            finish(core.retrying.sweep())
        clock.advance(6)
        retry = core.retrying.sweep()
        next(retry)
        for client in clients:
            client.peer.take()
        log.renew("other", 0)
        assert finish(retry) == 0
        assert core.deliveries.used == core.deliveries.pending == 0
        assert texts([message for client in clients for message in client.peer.take()]) == []


def test_rates_of_closed_clients_are_released(clock: Clock) -> None:
    core = make_core(clock, log=LateLog, rate_limit=5.0)
    assert isinstance(core.log, LateLog)
    joined(core, agent="ann")
    core.log.renew("other", 0)
    finish(core.hub.sweep())
    live(core, clock, 60)
    assert len(core.grants.agents) == 0


def test_restart(clock: Clock, core: Core) -> None:
    """
    Clients are closed, and resume without a gap.
    """
    resets: list[int] = []
    core.hub.was_reset = lambda: resets.append(len(core.clients.sessions))
    client = joined(core, "topics/t", agent="ann", quiet=True)
    core.hub.restart()
    finish(core.hub.sweep())
    assert client.peer.take() == []
    assert client.peer.closed is CloseCode.RESTART
    assert resets == [0]
