"""
A day of six agents for C{dcm-ws demo}: who publishes what, and when, made from a seed.  It does no I/O.
"""

from __future__ import annotations

import heapq
from dataclasses import replace
from random import Random
from typing import Any

from dcm_ws.cli.demo_steps import LENGTH, Day, Leave, Publish, Return, Step
from dcm_ws.cli.demo_work import AGENTS, ERRORS, NEXT, QUESTIONS, WHILE_AWAY, WORKS, Work

TEAM = "topics/team"
"""
The channel that all agents listen to, in addition to their own.
"""

ABSENT = "frontend"
"""
The agent that goes away, and comes back.
"""

_FIRST = 14.0
_LAST = 420.0
_BEAT = 30.0


def make_day(seed: int, number: int) -> Day:
    """
    Make a day.

    @param seed: the same seed gives the same days.
    @param number: of the day; ids differ from day to day.
    """
    return _Writer(Random(f"{seed}/{number}"), number).write()


class _Writer:
    """
    Writes down a day, one chain of events after the other; their times are scaled in the end.
    """

    def __init__(self, random: Random, number: int) -> None:
        self._random = random
        self._number = number
        self._steps: list[Step] = []
        self._names = 0
        self._free = dict.fromkeys(AGENTS, 0.0)
        self._left = random.uniform(190, 215)
        self._back = self._left + random.uniform(65, 80)

    def write(self) -> Day:
        """
        Write everything down, and return it.
        """
        for agent in AGENTS:
            at = self._random.uniform(0, 4)
            self._say(at, agent, f"sessions/{agent}-{self._number}", "session.created", **self._session(agent))
        self._meeting()
        self._absence()
        self._all_works()
        refused = self._unreadable()
        end = max(step.at for step in self._steps)
        for agent in AGENTS:
            self._beats(agent, end)
            at = end + self._random.uniform(3, 10)
            self._say(at, agent, f"sessions/{agent}-{self._number}", "session.ended", **self._session(agent))
        return Day(self._scaled(), refused)

    def _scaled(self) -> tuple[Step, ...]:
        ordered = sorted(self._steps, key=lambda step: step.at)
        factor = LENGTH / ordered[-1].at
        return tuple(replace(step, at=step.at * factor) for step in ordered)

    def _session(self, agent: str) -> dict[str, str]:
        return {"id": f"{agent}-{self._number}", "agent_id": agent}

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._number}-{self._names}"

    def _say(self, at: float, agent: str, to: str, event: str, /, **data: Any) -> float:
        """
        Have an agent publish an event; if it is away then, when it is back.

        @return: when.
        """
        if agent == ABSENT and self._left <= at < self._back:
            at = self._back + self._random.uniform(1, 4)
        self._steps.append(Publish(at, agent, to, event, data))
        return at

    def _meeting(self) -> None:
        message = {"id": self._name("message"), "from_agent_id": "planner", "topic": "team"}
        at = self._say(8, "planner", TEAM, "message.new", **message, text="Good morning. The tasks of today follow.")
        for agent in AGENTS[1:]:
            read = at + self._random.uniform(1, 5)
            self._say(read, agent, "agents/planner", "message.read", id=message["id"], agent_id=agent)

    def _absence(self) -> None:
        self._steps += [Leave(self._left, ABSENT), Return(self._back, ABSENT)]
        self._message(self._left + self._random.uniform(5, 20), "backend", ABSENT, "The field size is deployed.")
        name = self._name("message")
        asked = self._left + self._random.uniform(5, 15)
        parties = {"from_agent_id": "planner", "to_agent_id": ABSENT}
        self._say(
            asked, "planner", f"agents/{ABSENT}", "message.new", id=name, **parties, text="Do you have five minutes?"
        )
        self._say(asked + 35, "planner", f"agents/{ABSENT}", "message.expired", id=name, **parties)

    def _unreadable(self) -> str:
        """
        A message that the tester refuses each time; returns its id.
        """
        name, at = self._name("message"), self._random.uniform(300, 330)
        parties = {"from_agent_id": "backend", "to_agent_id": "tester"}
        attachment = {"name": "crash.dump", "encoding": "unknown-9"}
        self._say(
            at,
            "backend",
            "agents/tester",
            "message.new",
            id=name,
            **parties,
            text="Here is the crash dump.",
            attachment=attachment,
        )
        self._message(at + 15, "tester", "backend", "I cannot read crash.dump: its encoding is unknown.")
        return name

    def _all_works(self) -> None:
        gap = (_LAST - _FIRST) / len(WORKS)
        given = [(_FIRST + gap * (index + self._random.random() / 2), index) for index in range(len(WORKS))]
        works = [*WORKS, WHILE_AWAY]
        given.append((self._left + self._random.uniform(10, 25), len(WORKS)))
        heapq.heapify(given)
        failing = set(self._random.sample(range(len(WORKS)), 2))
        asking = set(self._random.sample(range(len(WORKS)), 4))
        while given:
            at, index = heapq.heappop(given)
            work, fails = works[index], index in failing
            ended = self._work(at, work, fails=fails, asks=index in asking)
            if fails:
                works.append(work._replace(name=f"{work.name}, second try"))
                heapq.heappush(given, (ended + self._random.uniform(4, 8), len(works) - 1))

    def _work(self, at: float, work: Work, *, fails: bool, asks: bool) -> float:
        """
        A task from its creation to its end.

        @param at: when it is created.
        @param fails: its last subtask fails.
        @param asks: the agent has to ask somebody before it can go on.
        @return: when it ends.
        """
        agent, task = work.agent, {"id": self._name("task"), "name": work.name, "agent_id": work.agent}
        own, planner = f"agents/{agent}", "agents/planner"
        at = self._say(at, "planner", own, "task.created", **task, status="pending")
        at = max(at + self._random.uniform(2, 5), self._free[agent])
        at = self._say(at, agent, planner, "task.updated", **task, status="running", progress=0)
        parts = [{"id": self._name("subtask"), "task_list_id": task["id"], "agent_id": agent} for _ in work.parts]
        for part, description in zip(parts, work.parts, strict=True):
            at = self._say(at + 0.2, agent, TEAM, "subtask.created", **part, description=description)
        for done, part in enumerate(parts, 1):
            at = self._say(at + self._random.uniform(0.5, 1.5), agent, TEAM, "subtask.running", **part)
            if asks and done == 1:
                at = self._ask(at + self._random.uniform(2, 4), agent)
            at += self._random.uniform(6, 14)
            if fails and done == len(parts):
                error = self._random.choice(ERRORS)
                at = self._say(at, agent, TEAM, "subtask.failed", **part, error=error)
                at = self._say(at + 0.5, agent, planner, "task.failed", **task, error=error)
                self._free[agent] = at + self._random.uniform(2, 6)
                return at
            at = self._say(at, agent, TEAM, "subtask.completed", **part)
            if done < len(parts):
                progress = round(100 * done / len(parts))
                at = self._say(at + 0.3, agent, planner, "task.updated", **task, status="running", progress=progress)
        at = self._say(at + 0.5, agent, planner, "task.completed", **task, subtasks=len(parts))
        self._message(at + 1, agent, NEXT[agent], f"Finished: {work.name}.")
        if agent == "ops":
            self._say(at + 1.5, agent, "topics/deploys", "system.info", component="ops", text=work.name, state="done")
        self._free[agent] = at + self._random.uniform(2, 6)
        return at

    def _ask(self, at: float, agent: str) -> float:
        """
        An agent asks another one, and cannot go on before it has read the answer; returns when it goes on.
        """
        question = QUESTIONS[agent]
        at = self._say(at, agent, "agents/planner", "agent.blocked", agent_id=agent, reason=question.text)
        read = self._message(at + 0.5, agent, question.whom, question.text)
        answered = self._message(read + self._random.uniform(2, 5), question.whom, agent, question.answer)
        return self._say(answered + 0.5, agent, "agents/planner", "agent.unblocked", agent_id=agent)

    def _message(self, at: float, sender: str, to: str, text: str) -> float:
        """
        A message, which its receiver reads; returns when.
        """
        message = {"id": self._name("message"), "from_agent_id": sender, "to_agent_id": to}
        at = self._say(at, sender, f"agents/{to}", "message.new", **message, text=text)
        read = at + self._random.uniform(2, 6)
        return self._say(read, to, f"agents/{sender}", "message.read", id=message["id"], agent_id=to)

    def _beats(self, agent: str, end: float) -> None:
        at = self._random.uniform(6, _BEAT)
        while at < end:
            if agent != ABSENT or not self._left <= at < self._back:
                load = round(self._random.uniform(0.05, 0.95), 2)
                self._say(at, agent, "topics/agents", "agent.heartbeat", agent_id=agent, load=load)
            at += _BEAT + self._random.uniform(-3, 3)
