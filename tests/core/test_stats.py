"""
The figures of C{/health} and C{/stats}.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.limits import COUNTERS
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import LogReport
from dcm_ws.core.session import Origin
from dcm_ws.core.stats import NAMES_SHOWN
from dcm_ws.protocol.channels import METRICS
from dcm_ws.protocol.errors import CloseCode
from tests.core.clients import TASK, away, joined, joined_again, stats, texts
from tests.fakes import Client, RecordingPeer, make_core


def test_metrics_are_wanted_while_somebody_listens(core: Core) -> None:
    """
    Snapshots are taken only for somebody.
    """
    assert not core.registry.members(METRICS.name)
    client = joined(core, "metrics")
    assert core.registry.members(METRICS.name)
    client.leave()

    assert not core.registry.members(METRICS.name)


def test_counts(core: Core) -> None:
    """
    The numbers behind C{/health} and C{/stats} are those of the moment.
    """
    ann, bob = joined(core, "topics/t", agent="ann"), joined(core)
    ann.say(**TASK)
    core.router.notified('{"channel":"topics/t","event":"task.failed"}')
    bob.say(type="hello")

    assert core.stats.sizes(names=False) == {"connectedClients": 2, "activeChannels": 3, "pendingDeliveries": 4}
    # /health shows them in this order
    assert list(core.stats.sizes(names=True)) == [
        "connectedClients",
        "activeChannels",
        "channelStats",
        "pendingDeliveries",
    ]
    assert core.stats.sizes(names=True)["channelStats"] == {"global": 2, "topics/t": 1, "agents/ann": 1}
    bob.leave()
    ann.leave()
    assert stats(core) == {
        "connectedClients": 0,
        "activeChannels": 0,
        "channelStats": {},
        "pendingDeliveries": 0,
        "failedDeliveries": 0,
        "authenticatedClients": 0,
        "observers": 0,
        "agentStats": {},
        "agentLoads": {"ann": {"inFlight": 0, "owed": 2, "behind": 0, "dead": 0}},
        "totalConnections": 2,
        "events": {"client": 1, "database": 1, "badNotifications": 0},
        "deliveries": {
            "acked": 0,
            "nacked": 0,
            "retried": 0,
            "givenUp": 0,
            "neverAcknowledged": 0,
            "keptForAbsentAgents": 2,
        },
        "agents": {"connected": 0, "absent": 1, "remembered": 1},
        "log": {
            "epoch": "epoch",
            "head": 2,
            "first": 1,
            "events": 2,
            "bytes": core.log.bytes,
            "inFlight": stats(core)["pendingDeliveries"],
            "owed": 2,
            "catchingUp": 0,
            "behind": 0,
            "replays": 0,
            "gaps": 0,
            "takeovers": 0,
            "engine": "memory",
            "state": "up",
            "reason": "",
            "fallback": False,
            "maxBytes": core.log.report()["maxBytes"],
            "oldest": core.log.report()["oldest"],
            "keep": core.log.report()["keep"],
            "partitions": 0,
            "inboxBytes": 0,
            "heldSince": None,
            "waiting": 0,
            "waitingBytes": 0,
            "readsWaiting": 0,
            "refused": 0,
            "steps": 0,
            "stepSeconds": 0,
            "numbered": 0,
            "lagged": 0,
            "lagSeconds": 0,
            "reads": 0,
        },
        "deadLetters": {"kept": 0, "bytes": 0, "waiting": 0, "died": 0, "poison": 0, "redriven": 0},
        "keys": {"remembered": 0, "duplicates": 0},
        "tokenKeys": {"fetches": 0, "failures": 0, "refused": 0},
        "refusals": {"UNKNOWN_MESSAGE_TYPE": 1},
        "closes": {},
        "limits": dict.fromkeys(COUNTERS, 0),
    }
    assert "channelStats" not in core.stats.report(names=False)


class Fallen(MemoryLog):
    """
    A log that is in memory because the database has none.
    """

    def report(self) -> LogReport:
        return {**super().report(), "reason": "database dcm at db.example.com has no schema dcm_ws"}


def test_log_that_fell_back_to_memory(clock: Clock) -> None:
    """
    Everybody sees that the log fell back to memory; the reason, which may name the database, goes with the names.
    """
    core = make_core(clock, log=Fallen)
    for names in (False, True):
        log = core.stats.report(names=names)["log"]
        assert log["fallback"]
        assert ("reason" in log) is names
    assert log["reason"].endswith("has no schema dcm_ws")


def test_what_the_engine_does_is_reported(core: Core) -> None:
    """
    Times are reported as a sum and a number, so that a reader of two reports can compute the mean between them.
    """
    engine = core.counts.engine
    engine.steps, engine.numbered, engine.reads = 2, 3, 4
    engine.refused.add_of("ann", 5)
    for seconds in (0.001, 0.002):
        engine.step_seconds.observe(seconds)
        engine.lag_seconds.observe(10 * seconds)
    engine.lag_seconds.observe(1)

    log = stats(core)["log"]
    assert {name: log[name] for name in ("steps", "numbered", "reads", "refused")} == {
        "steps": 2,
        "numbered": 3,
        "reads": 4,
        "refused": 5,
    }
    assert (log["stepSeconds"], log["lagged"], log["lagSeconds"]) == (0.003, 3, 1.03)


def test_so_many_channels_are_listed_at_most(clock: Clock) -> None:
    """
    A listing of channels is bounded; their number is not.
    """
    core = make_core(clock, max_subscriptions=5000)
    joined(core, *(f"topics/{number}" for number in range(NAMES_SHOWN + 5)))

    assert len(stats(core)["channelStats"]) == NAMES_SHOWN
    assert stats(core)["activeChannels"] == NAMES_SHOWN + 6


def test_recent_events_that_did_not_fit_are_counted(clock: Clock) -> None:
    """
    An operator sees that the log of recent events was too short.
    """
    core = make_core(clock, max_events=2)
    away(core, "ann", 5)

    assert stats(core)["limits"]["maxRecentEvents"] == 3
    assert texts(joined_again(core, "ann")) == [("topics/t", 3), ("topics/t", 4)]


# limits that are counted


def test_limits_are_counted_by_name(clock: Clock) -> None:
    """
    An operator sees which limits were crossed, and how often.
    """
    core = make_core(clock, max_connections=2, max_subscriptions=1, max_depth=1, rate_limit=1.0, rate_burst=5.0)
    client, other = Client(core), Client(core)
    assert core.hub.connect(RecordingPeer(), Origin()) is None
    client.say(type="subscribe", channel="topics/t")
    client.say(type="publish", channel="global", event="system.info", data=[[]])
    for _ in range(10):
        client.say(type="ping")
    core.hub.close(client.session, CloseCode.TOO_SLOW)
    core.hub.close(other.session, CloseCode.RESTART)

    assert {name: count for name, count in stats(core)["limits"].items() if count} == {
        "maxConnections": 1,
        "maxSubscriptions": 1,
        "maxDepth": 1,
        "rateLimit": 7,
        "maxSendBuffer": 1,
    }


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        (CloseCode.TOO_SLOW, "maxSendBuffer"),
        (CloseCode.TOO_MANY_MESSAGES, "rateLimitTenfold"),
        (CloseCode.PING_TIMEOUT, "heartbeatTimeout"),
        (CloseCode.AUTHENTICATION_REQUIRED, "authTimeout"),
    ],
)
def test_closes_for_a_limit_are_counted(core: Core, code: CloseCode, limit: str) -> None:
    """
    A connection that ends for a limit counts for that limit.
    """
    core.hub.close(Client(core).session, code)

    assert stats(core)["limits"][limit] == 1
    assert stats(core)["closes"] == {str(int(code)): 1}


def test_answers_are_counted(core: Core) -> None:
    """
    Every C{ack} that a client gets is counted once, an C{auth}'s as well.
    """
    client = Client(core)
    answers = [
        *client.auth("ann", id=1),
        *client.auth("ann"),
        *client.say(type="subscribe", channel="topics/t", id=2),
        *client.say(type="subscribe", channel="no channel", id=3),
    ]

    assert len([answer for answer in answers if answer.get("type") == "ack"]) == 4
    assert core.counts.sent.ack == 4


def test_publishing_is_timed(clock: Clock, core: Core) -> None:
    """
    What is measured begins with the client's message and ends when the frames are queued for all subscribers.
    """

    class Slow(RecordingPeer):
        def send(self, frame: bytes) -> None:
            clock.advance(0.25)
            super().send(frame)

    publisher = joined(core, quiet=True)
    for _ in range(2):
        joined(core, "topics/t", quiet=True).session.peer = Slow()
    publisher.say(type="publish", channel="topics/t", event="system.info")

    assert core.counts.publish_seconds.sum == 0.5
