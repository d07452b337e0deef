"""
The agents of C{dcm-ws demo}, as clients of the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Self

from dcm_ws.cli.connection import make_client, repeat_until_accepted
from dcm_ws.cli.demo_day import TEAM
from dcm_ws.cli.demo_rows import Rows
from dcm_ws.cli.demo_steps import Day, Leave, Publish, Return, Step, time_of_day
from dcm_ws.cli.demo_work import AGENTS
from dcm_ws.cli.options import Server
from dcm_ws.client import Event
from dcm_ws.client.aio import DCMClient

ATTEMPTS = 3
"""
How often the service sends an event that is refused each time.
"""

_AGAIN_SECONDS = 0.5
_REFUSED_SECONDS = 10.0
_TOLD = {
    "task.completed": "{agent_id} has completed: {name}",
    "task.failed": "{agent_id} has failed: {name} ({error})",
    "agent.blocked": "{agent_id} is blocked: {reason}",
    "agent.unblocked": "{agent_id} goes on",
}


class Players:
    """
    All agents.  They acknowledge what they receive, except for a message that its receiver cannot read.

    @param url: of the service.
    @param tell: called with a line for each thing that is worth one.
    """

    def __init__(self, url: str, rows: Rows, tell: Callable[[str], object]) -> None:
        self._rows = rows
        self._tell = tell
        self._clients = {
            agent: make_client(Server(url, agent_id=agent), (f"agents/{agent}", TEAM), observer=False)
            for agent in AGENTS
        }
        for agent, client in self._clients.items():
            client.on("*", partial(self._handle, agent, client))
        self._unreadable = ""
        self._refusals = 0
        self._all_refused = asyncio.Event()

    async def __aenter__(self) -> Self:
        for client in self._clients.values():
            await client.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.close()

    async def play(self, day: Day, speed: float) -> None:
        """
        Play a day, and wait until nothing is sent again.

        @param speed: seconds of the day in one second.
        """
        self._unreadable, self._refusals = day.refused, 0
        self._all_refused.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for step in day.steps:
            await asyncio.sleep(began + step.at / speed - loop.time())
            await self._perform(step)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_refused.wait(), _REFUSED_SECONDS)

    async def _perform(self, step: Step) -> None:
        client, now = self._clients[step.agent], time_of_day(step.at)
        match step:
            case Publish(_, _, channel, event, data):
                await asyncio.to_thread(self._rows.write, step)
                await repeat_until_accepted(lambda: client.publish(channel, event, data))
                if event in _TOLD:
                    self._tell(f"{now}  {_TOLD[event].format_map(data)}")
            case Leave():
                await client.close()
                self._tell(f"{now}  {step.agent} has lost its connection: what is for it is kept")
            case Return():
                await client.connect()
                self._tell(f"{now}  {step.agent} is back, and gets what it has missed")

    def _handle(self, agent: str, client: DCMClient, event: Event) -> None:
        if event.event != "message.new" or event.data["id"] != self._unreadable:
            return
        client.nack(event, _AGAIN_SECONDS)
        self._refusals += 1
        if self._refusals == ATTEMPTS:
            self._tell(f"       {agent} cannot read a message, and has refused it {ATTEMPTS} times: a dead letter")
            self._all_refused.set()
