"""
Checks everything that the core sends at the moment when it is sent.
"""

from __future__ import annotations

from typing import Any

from dcm_ws.core.assembly import Core
from tests.core.promises.far_end import Arrival, Connection
from tests.core.promises.ledger import Agent, Event, promise


class Audit:
    """
    Holds each frame against what was published, who may have it, and what was sent before.

    @ivar events: all events, by number.
    @ivar logged: those that were logged, in the order of their positions.
    """

    def __init__(self, max_attempts: int, agents: dict[str, Agent]) -> None:
        self._max_attempts = max_attempts
        self._agents = agents
        self.core: Core | None = None
        self.events: list[Event] = []
        self.logged: list[Event] = []

    def sent(self, connection: Connection, message: dict[str, Any], text: bytes) -> Arrival:
        """
        The core sends C{message}.
        """
        if "event" in message:
            if isinstance(message["data"], int):
                self._event(connection, self.events[message["data"]], message, text)
            else:
                self._presence(connection)
        elif message["type"] == "gap":
            return self._gap(connection, message)
        elif "resumed" in message:
            self._resumed(connection, message)
        elif "epoch" in message:
            self._place(connection, message["pos"])
        return Arrival(message)

    def first(self) -> int:
        """
        The oldest position that is kept.
        """
        return next((event.pos for event in self.logged if not event.is_gone), len(self.logged) + 1)

    def gap(self, epoch: str, pos: int, channels: list[str]) -> tuple[str, int] | None:
        """
        What a client must be told that resumes from there.
        """
        assert self.core is not None
        if epoch != self.core.log.epoch:
            return "epoch", self.first()
        if pos > len(self.logged):
            return "ahead", self.first()
        gone = any(
            event.is_gone and event.pos > pos and set(event.lanes).intersection(channels) for event in self.logged
        )
        return ("expired", self.first()) if gone else None

    # events

    def _event(self, connection: Connection, event: Event, message: dict[str, Any], text: bytes) -> None:
        channel = message["channel"]
        where = f"{event} on {channel} for {connection.owner!r}"
        promise(channel in event.lanes, f"{where}: not a channel that carries it")
        event.id = event.id or message["id"]
        promise(event.id == message["id"], f"{where}: another id")
        promise(event.texts.setdefault(channel, text) == text, f"{where}: another frame than before")
        promise(message.get("pos", 0) == event.pos, f"{where}: the wrong position")
        promise(self._may_have(connection, event, channel), f"{where}: no right to it")
        agent = self._agents.get(connection.agent or "")
        key = event, channel
        if key in connection.shown:
            assert connection.session is not None
            again = event.tracked and not connection.session.observer and connection.owner not in event.acked
            promise(again, f"{where}: sent again without need")
        else:
            connection.shown.add(key)
            # each connection gets what it is subscribed to, and what the agent has resumed it has asked for: it owes
            # an ack for that, also if it has acknowledged it on another connection
            event.acked.discard(connection.owner)
            if event.pos and not (agent and event in agent.sent):
                promise(event.pos > connection.last.get(channel, 0), f"{where}: after {connection.last.get(channel)}")
                connection.last[channel] = event.pos
        connection.due.pop((event.pos, channel), None)
        self._count(connection, agent, key, where)

    def _count(self, connection: Connection, agent: Agent | None, key: tuple[Event, str], where: str) -> None:
        connection.sends[key] += 1
        sends = connection.sends[key]
        promise(sends <= self._max_attempts or not connection.alone, f"{where}: sent {sends} times")
        if agent is not None and key[0].tracked:
            agent.sent.add(key[0])
            if sends >= self._max_attempts:
                agent.exhausted.add(key[0])

    def _may_have(self, connection: Connection, event: Event, channel: str) -> bool:
        if (connection.number, channel) in event.audience or (event, channel) in connection.shown:
            return True
        if event.pos > connection.resumed.get(channel, 1 << 62):
            return True
        agent = connection.agent
        if agent is None or not self._is_kept(connection, agent, event, channel):
            return False
        # what it has acknowledged on another connection in the meantime may still come
        return agent not in event.acked or event in connection.inherited

    def _is_kept(self, connection: Connection, agent: str, event: Event, channel: str) -> bool:
        """
        Is the event kept for an agent, which is subscribed to a channel, or was so when the event was published?  If it
        is subscribed to none any more that has the event, it gets that on the event's own channel.
        """
        assert self.core is not None and connection.session is not None
        if (agent, channel) in event.agents:
            return True
        subscribed = set(event.lanes).intersection(self.core.registry.channels(connection.session))
        here = channel in subscribed or (channel == event.channel and not subscribed)
        return here and any((agent, each) in event.agents for each in event.lanes)

    def _presence(self, connection: Connection) -> None:
        assert self.core is not None
        session, rules = connection.session, self.core.rules
        assert session is not None
        promise(not session.is_stranger or rules.anonymous_listeners, "an event for a client that has to authenticate")

    # positions

    def _place(self, connection: Connection, pos: int) -> None:
        """
        Everything up to C{pos} has been sent.
        """
        promise(pos <= len(self.logged), f"position {pos} is not given yet")
        due = min(connection.due, default=None)
        promise(due is None or due[0] > pos, f"{due} is not sent to {connection.owner!r}, which is told position {pos}")

    def _resumed(self, connection: Connection, message: dict[str, Any]) -> None:
        gap = message.get("gap")
        told = (gap["reason"], gap["first"]) if gap else None
        promise(told == connection.gap, f"{connection.owner!r} is told of the gap {told}, and has {connection.gap}")
        promise(message["resumed"] is (gap is None), "resumed with a gap")

    def _gap(self, connection: Connection, message: dict[str, Any]) -> Arrival:
        lost = frozenset(event for event in self.logged if event.is_gone)
        promise(message["first"] == self.first(), "a gap with a wrong first position")
        promise(message["reason"] == "expired" and message["pos"] <= len(self.logged), "a wrong gap")
        agent = self._agents.get(connection.agent or "")
        missing = [event for event in lost if self._misses(connection, agent, event)]
        promise(missing, f"{connection.owner!r} is told of a gap that it does not have")
        connection.told |= lost
        # what is lost before that position later counts as told: a log that expires by age loses in order
        upto = max(event.pos for event in lost)
        connection.told_upto = max(upto, connection.told_upto)
        connection.due = {key: event for key, event in connection.due.items() if event not in lost}
        if agent is not None:
            agent.owed = {event: None for event in agent.owed if event not in lost}
            agent.told_upto = max(upto, agent.told_upto)
        return Arrival(message, lost)

    def _misses(self, connection: Connection, agent: Agent | None, event: Event) -> bool:
        if agent is not None and any(name == agent.name for name, _ in event.agents) and agent.name not in event.acked:
            return True
        if event in connection.inherited:
            # what has been acknowledged on another connection may be missed, as it may come again
            return True
        assert self.core is not None and connection.session is not None
        return any(
            (event, channel) not in connection.shown
            and event not in connection.told
            and ((event.pos, channel) in connection.due or event.pos > connection.floor)
            for channel in self.core.registry.channels(connection.session) & set(event.lanes)
        )
