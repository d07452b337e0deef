"""
Log lines once a minute.
"""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from twisted.internet.task import Clock

from dcm_ws.app.summary import Summary
from dcm_ws.core.assembly import Core
from dcm_ws.core.counters import SharedCount
from dcm_ws.core.counts import Counts
from dcm_ws.core.tracked import Tracked
from dcm_ws.http.origins import Target
from dcm_ws.protocol.errors import ProtocolError
from tests.fakes import Client, make_core


def notify_badly(core: Core, summary: Summary) -> None:
    with pytest.raises(ProtocolError) as raised:
        core.router.notified("nonsense")
    summary.bad_notification(raised.value.reason)


def test_bad_notifications(clock: Clock, warnings: list[str]) -> None:
    """
    Bad notifications are one line in the next minute, with the reason of the last one; without any there is no line.
    """
    core = make_core(clock)
    summary = Summary(core.counts, clock.seconds)
    summary.write()
    assert warnings == []
    notify_badly(core, summary)
    notify_badly(core, summary)
    summary.write()
    assert len(warnings) == 1
    assert warnings[0].startswith("2 bad notifications in the last minute; the last one: '")
    summary.write()
    assert len(warnings) == 1


def test_refused_pages(clock: Clock, warnings: list[str]) -> None:
    """
    The first refused page of a minute is logged, with the number of those before it that were not.
    """
    summary = Summary(make_core(clock).counts, clock.seconds)
    for _ in range(3):
        summary.page_refused("https://evil.example", Target("a.com"))
    assert len(warnings) == 1
    assert "'https://evil.example'" in warnings[0]
    assert "'a.com'" in warnings[0]
    assert warnings[0].endswith("(0 more in the last minute)")
    clock.advance(60)
    summary.page_refused("https://evil.example", Target("a.com"))
    assert warnings[1].endswith("(2 more in the last minute)")


def test_dead_letters(clock: Clock, warnings: list[str]) -> None:
    """
    One line a minute says how many events became dead letters, and of which agents.
    """
    core = make_core(clock)
    summary = Summary(core.counts, clock.seconds)
    for number in range(7):
        for pos in range(number + 1):
            core.letters.bury(f"agent-{number}", Tracked(pos, f"msg_{pos}", (b"frame",)), 3, "attempts")
    summary.write()
    summary.write()
    core.letters.bury("ann", Tracked(1, "msg_1", (b"frame",)), 3, "attempts")
    summary.write()

    assert warnings == [
        "28 events became dead letters in the last minute: 7 of agent 'agent-6', 6 of agent 'agent-5',"
        " 5 of agent 'agent-4', 4 of agent 'agent-3', 3 of agent 'agent-2', others of 2 more",
        "1 events became dead letters in the last minute: 1 of agent 'ann'",
    ]


def test_whose_shares_were_cut(clock: Clock, warnings: list[str]) -> None:
    """
    One line a minute for each budget names the agent that lost most, and how much was lost in all.
    """
    core = make_core(clock, max_events=100, max_keys=10)
    summary = Summary(core.counts, clock.seconds)
    for agent, number in (("ann", 5), ("bob", 60), ("mallory", 300)):
        client = Client(core)
        client.auth(agent)
        for key in range(number):
            client.say(type="publish", channel="topics/t", event="task.created", key=str(key))
    assert warnings == []
    summary.write()
    assert len(warnings) == 2
    for line, what, options, kept in zip(
        sorted(warnings),
        ("events left the log before their time", "keys of publishes were forgotten before their time"),
        ("--max-recent-events and --log-max-bytes", "--max-keys"),
        (len(core.log), len(core.keys)),
        strict=True,
    ):
        of_mallory, others = re.fullmatch(
            f"{365 - kept} {what} in the last minute, because of {options}: (\\d+) of agent 'mallory';"
            r" (\d) more lost some",
            line,
        ).groups()  # type: ignore[union-attr]
        assert 240 < int(of_mallory) < 300
        assert others in "12"
    summary.write()
    assert len(warnings) == 2


def test_publishers_that_are_not_agents_are_named(clock: Clock, warnings: list[str]) -> None:
    core = make_core(clock, max_events=1)
    summary = Summary(core.counts, clock.seconds)
    for number in range(3):
        core.router.notified(f'{{"channel":"global","event":"task.created","data":{number}}}')
    summary.write()
    assert warnings[0].endswith(": 2 of database")


def test_many_losers(clock: Clock, warnings: list[str], counts: Counts) -> None:
    """
    The names are limited in number; how much was lost is not.
    """
    summary = Summary(counts, clock.seconds)
    for number in range(1000):
        counts.limits.max_agents.add_of(f"agent-{number}")
    counts.limits.max_agents.add_of("agent-7")
    summary.write()
    assert warnings == [
        "1001 remembered agents were forgotten in the last minute, because of --max-agents: 2 of agent 'agent-7';"
        " at least 99 more lost some"
    ]


def test_every_shared_budget_has_a_line(clock: Clock, warnings: list[str], counts: Counts) -> None:
    shared = [
        name
        for name, limit in ((field.name, getattr(counts.limits, field.name)) for field in fields(counts.limits))
        if isinstance(limit, SharedCount)
    ]
    for name in shared:
        getattr(counts.limits, name).add_of("mallory")
    Summary(counts, clock.seconds).write()
    assert len(warnings) == len(shared) > 4
    assert all("mallory" in line for line in warnings)


def test_events_that_could_not_be_logged(clock: Clock, warnings: list[str], counts: Counts) -> None:
    """
    One line names the publisher that lost most; there is none while nothing is refused.
    """
    summary = Summary(counts, clock.seconds)
    for publisher in ("ann", " database", " database"):
        counts.engine.refused.add_of(publisher)
    summary.write()
    summary.write()
    assert warnings == ["3 events could not be written to the log in the last minute: 2 of database"]
