"""
The agents of C{dcm-ws demo}, as clients of the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Self

from dcm_ws.app.options import BY_NAME
from dcm_ws.cli.connection import make_client, repeat_until_accepted
from dcm_ws.cli.demo_day import TEAM
from dcm_ws.cli.demo_rows import Rows
from dcm_ws.cli.demo_steps import Day, Leave, Publish, Return, Step, time_of_day
from dcm_ws.cli.demo_work import AGENTS
from dcm_ws.cli.options import Server
from dcm_ws.client import Event
from dcm_ws.client.aio import DCMClient
from dcm_ws.client.errors import ClosedError, NotConnectedError, RequestTimeoutError

_ATTEMPTS: int = BY_NAME["max-attempts"].default
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
        self._keys = count(1)
        self._refusals = 0
        self._all_refused = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(client.connect() for client in self._clients.values()))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients.values()))

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
                await self._publish(client, channel, event, data)
                if event in _TOLD:
                    self._tell(f"{now}  {_TOLD[event].format_map(data)}")
            case Leave():
                await client.close()
                self._tell(f"{now}  {step.agent} has lost its connection: what is for it is kept")
            case Return():
                await client.connect()
                self._tell(f"{now}  {step.agent} is back, and gets what it has missed")

    async def _publish(self, client: DCMClient, channel: str, event: str, data: dict[str, Any]) -> None:
        """
        Publish an event once, also if the connection is lost meanwhile, as when the computer sleeps, or C{dcm-ws kick}
        is tried out.
        """
        key = f"demo-{next(self._keys)}"
        while True:
            try:
                await repeat_until_accepted(lambda: client.publish(channel, event, data, key=key))
                return
            except (NotConnectedError, RequestTimeoutError, ClosedError):
                await client.connect()

    def _handle(self, agent: str, client: DCMClient, event: Event) -> None:
        # others may publish on these channels, too
        data = event.data if isinstance(event.data, dict) else {}
        if event.event != "message.new" or data.get("id") != self._unreadable:
            return
        client.nack(event, _AGAIN_SECONDS)
        self._refusals += 1
        if self._refusals == _ATTEMPTS:
            self._tell(f"       {agent} cannot read a message, and has refused it {_ATTEMPTS} times: a dead letter")
            self._all_refused.set()
