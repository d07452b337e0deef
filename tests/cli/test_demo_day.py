"""
The days of dcm-ws demo, as data.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from dcm_ws.cli.demo_day import ABSENT, TEAM, make_day
from dcm_ws.cli.demo_steps import LENGTH, Day, Leave, Publish, Return, time_of_day
from dcm_ws.cli.demo_work import AGENTS
from dcm_ws.cli.options import check_channels
from dcm_ws.protocol.events import CATALOGUE

SEEDS = range(20)


def published(day: Day, *events: str) -> list[Publish]:
    """
    The events with these names, or all of them, in their order.
    """
    return [step for step in day.steps if isinstance(step, Publish) and (not events or step.event in events)]


def test_same_seed() -> None:
    """
    The same seed and number give the same day; another seed or number gives another one, whose ids differ if the number
    does.
    """
    day = make_day(1, 1)
    assert make_day(1, 1) == day
    assert make_day(2, 1) != day
    ids = [{step.data["id"] for step in published(make_day(1, number)) if "id" in step.data} for number in (1, 2)]
    assert ids[0].isdisjoint(ids[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_events(seed: int) -> None:
    """
    All events are of the catalogue, on channels that exist, with data that is JSON; they come in the order of time, and
    the last one is at the end of the day.
    """
    day = make_day(seed, 1)
    events = published(day)
    assert {step.event for step in events} <= CATALOGUE
    check_channels({step.channel for step in events})
    assert all(len(json.dumps(step.data)) < 1000 for step in events)
    times = [step.at for step in day.steps]
    assert times == sorted(times) and times[0] >= 0 and times[-1] == pytest.approx(LENGTH)
    assert 400 < len(events) < 600
    counts = Counter(step.agent for step in events)
    assert counts.keys() == set(AGENTS) and min(counts.values()) > 30


@pytest.mark.parametrize("seed", SEEDS)
def test_tasks_end(seed: int) -> None:
    """
    Each task and each subtask is created, then worked at by the agent that it was given to, and ends once.  Two tasks
    fail, and are tried again.
    """
    day = make_day(seed, 1)
    for family in ("task", "subtask"):
        histories: dict[str, list[Publish]] = {}
        for step in published(day):
            if step.event.startswith(f"{family}."):
                histories.setdefault(step.data["id"], []).append(step)
        for created, *worked in histories.values():
            assert created.event == f"{family}.created"
            assert len(worked) >= 2
            assert {step.agent for step in worked} == {created.data["agent_id"]}
            ends = [step.event in (f"{family}.completed", f"{family}.failed") for step in worked]
            assert ends == [False] * (len(ends) - 1) + [True]
    tasks = {step.data["id"] for step in published(day, "task.created")}
    assert {step.data["task_list_id"] for step in published(day, "subtask.created")} == tasks
    failed = [step.data["name"] for step in published(day, "task.failed")]
    completed = [step.data["name"] for step in published(day, "task.completed")]
    assert len(failed) == 2
    assert all(f"{name}, second try" in completed for name in failed)


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_end(seed: int) -> None:
    """
    Each message is read after it was sent, by the agent that it is for, or expires; one is refused, and never read.
    """
    day = make_day(seed, 1)
    sent = {step.data["id"]: step for step in published(day, "message.new")}
    expired = {step.data["id"] for step in published(day, "message.expired")}
    readers: dict[str, set[str]] = {}
    for step in published(day, "message.read"):
        assert step.at > sent[step.data["id"]].at
        readers.setdefault(step.data["id"], set()).add(step.agent)
    for name, message in sent.items():
        for_all = message.channel == TEAM
        receivers = set(AGENTS) - {message.agent} if for_all else {message.data["to_agent_id"]}
        assert for_all or message.channel == f"agents/{message.data['to_agent_id']}"
        unread = name in expired or name == day.refused
        assert readers.get(name, set()) == (set() if unread else receivers)
    assert len(expired) == 1 and day.refused in sent and day.refused not in expired


@pytest.mark.parametrize("seed", SEEDS)
def test_absence(seed: int) -> None:
    """
    One agent goes away and comes back; it publishes nothing meanwhile, and is sent a task and messages that it handles
    later.
    """
    day = make_day(seed, 1)
    leave, back = [step for step in day.steps if not isinstance(step, Publish)]
    assert isinstance(leave, Leave) and isinstance(back, Return) and leave.agent == back.agent == ABSENT
    meanwhile = [step for step in published(day) if leave.at <= step.at <= back.at]
    assert ABSENT not in {step.agent for step in meanwhile}
    missed = Counter(step.event for step in meanwhile if step.channel == f"agents/{ABSENT}")
    assert missed["task.created"] >= 1 and missed["message.new"] >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_sessions_and_blocks(seed: int) -> None:
    """
    Each agent publishes everything within a session of its own, and each agent that is blocked goes on.
    """
    day = make_day(seed, 1)
    for agent in AGENTS:
        mine = [step.event for step in published(day) if step.agent == agent]
        assert mine[0] == "session.created" and mine[-1] == "session.ended"
        assert mine.count("session.created") == mine.count("session.ended") == 1
        blocks = [event for event in mine if event in ("agent.blocked", "agent.unblocked")]
        assert blocks == ["agent.blocked", "agent.unblocked"] * (len(blocks) // 2)
    assert published(day, "agent.blocked")


def test_time_of_day() -> None:
    """
    The agents work from nine to five.
    """
    assert [time_of_day(at) for at in (0, LENGTH / 2, LENGTH)] == ["09:00", "13:00", "17:00"]
