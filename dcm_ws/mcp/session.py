"""
Joins one agent's connection to the service with one client of the MCP server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from dcm_ws.client import Event
from dcm_ws.client.aio import DCMClient
from dcm_ws.mcp.calls import Calls, ListConnected
from dcm_ws.mcp.choice import Choice
from dcm_ws.mcp.exchange import Exchange
from dcm_ws.mcp.far_end import FarEnd, NotListeningError
from dcm_ws.mcp.history import History
from dcm_ws.mcp.inbox import Inbox
from dcm_ws.mcp.pacing import Pace
from dcm_ws.mcp.push import Announcer, Pusher
from dcm_ws.mcp.rendering import Rendered, render
from dcm_ws.mcp.server import AgentServer
from dcm_ws.mcp.stdio import Output, Stdio
from dcm_ws.protocol.gateway import Sent

BURST = 10
"""
Notifications that a client may get at once.
"""

_SWEEP = 0.5
_DRAIN = 2.0


class Session:
    """
    Serves a client.

    @param agent: the agent's name; empty if only the token has it.
    @param client: not connected yet; it must not be an observer.
    """

    def __init__(
        self, agent: str, client: DCMClient, history: History, connected: ListConnected, choice: Choice
    ) -> None:
        self._client = client
        self._choice = choice
        self.inbox = Inbox(
            render=self._render,
            acknowledge=client.acknowledge,
            now=time.monotonic,
            wanted=choice.trusted,
            own=lambda: client.agent_id,
        )
        calls = Calls(client, self.inbox, history, connected, choice)
        self._server = AgentServer(agent, calls, self.inbox, calls.channels, pushes=choice.push in ("auto", "channel"))
        self._queue = client.queue(self._arrived)
        client.on_gap(lambda gap: self.inbox.note(f"{gap}; see recent_events"))

    def _render(self, event: Event) -> Rendered:
        return render(event, str(self._client.greeting.get("epoch", "")) or None, self._choice.data_max)

    def _arrived(self) -> None:
        while (taken := self._queue.take()) is not None:
            event, done = taken
            if event.channel == "global" and "global" not in self._client.channels:
                # the service sends some before the client has unsubscribed
                done(True)
                continue
            self.inbox.add(event, done)

    def over_stdio(self, lines: AsyncIterator[bytes], fd: int) -> FarEnd:
        """
        The client, on standard input and output.

        @param lines: what it sends.
        @param fd: where it reads.
        """
        return Stdio(lines, Output(fd), self._server.written)

    def over_http(self, session: int, send: Callable[[Sent], object]) -> Exchange:
        """
        The client, over HTTP; the parameters are those of L{Exchange}.
        """
        return Exchange(session, send, self._server.written, self._server.unwritten)

    async def serve(self, far: FarEnd) -> None:
        """
        Serve the client until it closes its side or does not read any more.
        """
        serving = asyncio.create_task(self._server.run(far.reading, far.writing))
        writing = asyncio.create_task(far.write())
        reading = asyncio.create_task(far.read())
        endless = [asyncio.create_task(work) for work in (self._notify(far), self._sweep())]
        try:
            await asyncio.wait({serving, writing, *endless}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await asyncio.wait({writing}, timeout=_DRAIN)
            for task in (serving, writing, *endless):
                if task.done():
                    # the client has gone
                    with suppress(BrokenPipeError):
                        task.result()
        finally:
            tasks = (reading, serving, writing, *endless)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._queue.end()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self.inbox.acknowledge_late()

    async def _notify(self, far: FarEnd) -> None:
        await self._server.ready.wait()
        pace = Pace(self._choice.per_minute, BURST)
        push = self._choice.push
        pushes = push == "channel" or (push == "auto" and self._server.takes_pushes)
        while push != "off":
            await far.listens()
            with suppress(NotListeningError):
                await (self._pusher(far, pace) if pushes else self._announcer(far, pace)).run()
        await asyncio.Event().wait()

    def _pusher(self, far: FarEnd, pace: Pace) -> Pusher:
        return Pusher(self.inbox, far.notify, pace, time.monotonic)

    def _announcer(self, far: FarEnd, pace: Pace) -> Announcer:
        return Announcer(
            self.inbox,
            lambda channel: self._server.updated(channel, far.notify),
            lambda text: self._server.log(text, far.notify),
            pace,
            time.monotonic,
        )
