"""
What the tools do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

from dcm_ws.client import DCMError, Event, State
from dcm_ws.client.aio import DCMClient
from dcm_ws.mcp.arguments import (
    Ack,
    Arguments,
    ClaimTask,
    CompleteTask,
    ListAgents,
    Publish,
    RecentEvents,
    Reply,
    SendMessage,
    Subscribe,
    Unsubscribe,
    WaitForEvent,
)
from dcm_ws.mcp.choice import Choice
from dcm_ws.mcp.history import Found, History
from dcm_ws.mcp.inbox import TEXT_MAX, Inbox, Item
from dcm_ws.mcp.publishing import publish
from dcm_ws.mcp.rendering import Rendered, escaped, join, render
from dcm_ws.mcp.tasks import CLAIM, claim, first_claim
from dcm_ws.mcp.wanted import Wanted

ListConnected = Callable[[], Awaitable[dict[str, int]]]
"""
Returns the number of connections of each connected agent.

@raise CallError: the service does not say.
"""


CONNECT_SECONDS = 5.0
"""
Seconds that a call waits for a connection if it can also be done without one.
"""


class CallError(Exception):
    """
    The tool cannot do what the model asks for; the text says why.
    """


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What a tool returns.

    @ivar items: the events that the model has read when it has the text.
    """

    text: str
    items: list[Item] = field(default_factory=list)


class Calls:
    """
    Executes the calls of one model.

    @param client: the agent's connection.
    @param inbox: what the model has not read yet.
    """

    def __init__(
        self, client: DCMClient, inbox: Inbox, history: History, connected: ListConnected, choice: Choice
    ) -> None:
        self._client = client
        self._inbox = inbox
        self._history = history
        self._connected = connected
        self._choice = choice

    async def call(self, arguments: Arguments) -> Outcome:
        """
        @raise CallError: it cannot be done.
        @raise DCMError: the service refuses it.
        """
        return await self._call(arguments)

    @singledispatchmethod
    async def _call(self, arguments: Arguments) -> Outcome:
        raise AssertionError(arguments)

    # publishing

    @_call.register
    async def _publish(self, call: Publish) -> Outcome:
        return await self._say(call.channel, call.event, call.data, call.key)

    @_call.register
    async def _send_message(self, call: SendMessage) -> Outcome:
        data = {**(call.data or {}), "content": call.content}
        return await self._say(f"agents/{call.to}", "message.new", data, call.key)

    @_call.register
    async def _reply(self, call: Reply) -> Outcome:
        label = self._inbox.label(call.message_id)
        if label is None:
            raise CallError("you were not shown an event with this id lately; use send_message")
        if label.sender is None:
            raise CallError("no agent published this event, so there is no agent to reply to")
        data = {"content": call.content, "reply_to": call.message_id}
        return await self._say(f"agents/{label.sender}", "message.new", data, call.key)

    @_call.register
    async def _complete_task(self, call: CompleteTask) -> Outcome:
        event = "task.failed" if call.failed else "task.completed"
        return await self._say(call.channel, event, {"task_id": call.task_id, "result": call.result}, None)

    @_call.register
    async def _claim_task(self, call: ClaimTask) -> Outcome:
        published = await publish(self._client, call.channel, CLAIM, claim(call.task_id))
        if published.pos is None:
            raise CallError("this service keeps no log, so tasks cannot be claimed")
        claims: list[Event] = []
        async for item in self._history.read([call.channel], call.position, published.pos):
            if isinstance(item, Event) and item.event == CLAIM:
                claims.append(item)
        if not claims or claims[-1].id != published:
            raise CallError("the log could not be read up to your claim: call again")
        first = first_claim(claims, call.task_id)
        mine = first is not None and first.sender == self._client.agent_id
        return _json({"claimed": mine, "claimed_by": first.sender if first is not None else None})

    async def _say(self, channel: str, event: str, data: object, key: str | None) -> Outcome:
        published = await publish(self._client, channel, event, data, key)
        answer: dict[str, Any] = {"message_id": str(published)}
        if published.pos is not None:
            answer["position"] = f"{self._client.greeting.get('epoch')}.{published.pos}"
        return _json(answer | ({"duplicate": True} if published.duplicate else {}))

    # reading

    @_call.register
    async def _wait_for_event(self, call: WaitForEvent) -> Outcome:
        wanted = Wanted(call.channels, call.events, call.senders)
        if call.since is not None:
            found = await self._history.after(
                call.channels or self.channels(), call.since, self._chooser(wanted), call.limit
            )
            if found.events:
                return self._found(found)
        try:
            async with asyncio.timeout(call.timeout_seconds):
                while not (items := self._inbox.take(wanted, call.limit)):
                    await self._inbox.arrival()
        except TimeoutError:
            return Outcome(f"no such event within {call.timeout_seconds:g} s" + self._more())
        return Outcome(join(item.rendered for item in items) + self._more(), items)

    @_call.register
    async def _recent_events(self, call: RecentEvents) -> Outcome:
        chooser = self._chooser(Wanted(call.channels, call.events, call.senders))
        channels = call.channels or self.channels()
        if call.since is None:
            return self._found(await self._history.latest(channels, chooser, call.limit))
        return self._found(await self._history.after(channels, call.since, chooser, call.limit))

    @_call.register
    async def _list_agents(self, call: ListAgents) -> Outcome:
        agents = sorted((await self._connected()).items())
        listed = [{"agent": name, "connections": count} for name, count in agents[: call.limit]]
        more = {"more": len(agents) - call.limit} if len(agents) > call.limit else {}
        return _json({"you": self._client.agent_id, "agents": listed} | more)

    @_call.register
    async def _ack(self, call: Ack) -> Outcome:
        unknown = [name for name in call.message_ids if not self._inbox.discard(name)]
        return _json({"read": len(call.message_ids) - len(unknown), "not_waiting": unknown})

    # subscriptions

    @_call.register
    async def _subscribe(self, call: Subscribe) -> Outcome:
        await self._connect_soon()
        await self._client.subscribe(call.channel)
        return self._subscriptions()

    @_call.register
    async def _unsubscribe(self, call: Unsubscribe) -> Outcome:
        await self._connect_soon()
        await self._client.unsubscribe(call.channel)
        return self._subscriptions()

    async def _connect_soon(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._client.connected()

    def _subscriptions(self) -> Outcome:
        answer: dict[str, Any] = {"channels": self.channels()}
        if self._client.state is not State.CONNECTED:
            answer["note"] = f"not connected now ({self._client.ended}); this holds from the next connection on"
        return _json(answer)

    def channels(self) -> list[str]:
        """
        The channels that the agent is subscribed to.
        """
        own = [] if self._client.agent_id is None else [f"agents/{self._client.agent_id}"]
        return sorted({*self._client.channels, *own})

    # what has been found

    def _chooser(self, wanted: Wanted) -> Callable[[Event], bool]:
        def chooses(event: Event) -> bool:
            label = render(event, None, 0).label
            return wanted.matches(label) and self._choice.trusted.matches(label)

        return chooses

    def _found(self, found: Found) -> Outcome:
        epoch = str(self._client.greeting.get("epoch", "")) or None
        return Outcome(text_of([render(event, epoch, self._choice.data_max) for event in found.events], found.notes))

    def _more(self) -> str:
        notes = self._inbox.notices()
        if self._client.state is not State.CONNECTED:
            notes.append(f"not connected to the service now: {escaped(self._client.ended)}")
        return "".join(f"\n({note})" for note in notes)


def text_of(rendered: list[Rendered], notes: list[str]) -> str:
    """
    Events that have been found, at most L{TEXT_MAX} characters of them, and notes about them.
    """
    shown: list[Rendered] = []
    room = TEXT_MAX
    for one in rendered:
        room -= len(one.text)
        if shown and room < 0:
            notes = [
                *notes,
                f"{len(rendered) - len(shown)} more do not fit: go on with since={shown[-1].label.position}",
            ]
            break
        shown.append(one)
    return (join(shown) if shown else "no events") + "".join(f"\n({note})" for note in notes)


def _json(value: object) -> Outcome:
    return Outcome(escaped(json.dumps(value, ensure_ascii=False)))


def describe(error: Exception) -> str:
    """
    Why a call failed, for the model.
    """
    code = f" ({error.code})" if isinstance(error, DCMError) else ""
    return escaped(str(error) or type(error).__name__) + code
