"""
Client applications as the protocol describes them, over any number of connections.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.core.promises.far_end import Arrival, Connection
from tests.core.promises.ledger import Event, promise


class Request(NamedTuple):
    """
    A request whose answer has not been read yet.

    @ivar head: the end of the log when it was executed.
    """

    type: str
    channels: tuple[str, ...]
    head: int


class Application:
    """
    One client application.

    @ivar agent: what it authenticates as; None if it does not.
    @ivar resumes: it keeps its position, and resumes from there; otherwise it knows nothing of positions.
    @ivar acks: it acknowledges everything at once.
    @ivar fast: it reads everything at once.
    @ivar channels: what it is subscribed to, as it knows, with the position after which.
    @ivar wants: what it subscribes to when it connects for the first time.
    @ivar epoch: of its position.
    @ivar pos: everything up to there it has applied; None before it knows any.
    @ivar due: logged events that it has to apply or to be told of, by position and channel.
    @ivar applied: events that it has applied, with the channel.
    @ivar early: those that it read before the answer to its resume.
    @ivar unacked: tracked events that it has read and not acknowledged.
    """

    def __init__(
        self, name: str, agent: str | None, *, observer: bool, resumes: bool, acks: bool, fast: bool, wants: list[str]
    ) -> None:
        self.name = name
        self.agent = agent
        self.observer = observer
        self.resumes = resumes
        self.acks = acks
        self.fast = fast
        self.wants = wants
        self.connection: Connection | None = None
        self.requests: dict[int, Request] = {}
        self.channels: dict[str, int] = {}
        self.epoch = ""
        self.pos: int | None = None
        self.due: dict[tuple[int, str], Event] = {}
        self.applied: set[tuple[Event, str]] = set()
        self.early: set[tuple[Event, str]] = set()
        self.unacked: dict[Event, None] = {}
        self._last: dict[str, int] = {}
        self._resuming = False
        self._given = Request("connect", (), 0)
        # the channels that it has unsubscribed from on this connection, with the number of the request
        self._left: dict[str, int] = {}

    @property
    def owes(self) -> bool:
        """
        It acknowledges tracked events.
        """
        return not self.observer

    def connected(self, connection: Connection, given: Request) -> None:
        """
        It has a new connection.

        @param given: what it is subscribed to without asking for it.
        """
        self.connection = connection
        self.requests.clear()
        self._left.clear()
        self._given = given
        self._resuming = self.resumes and self.pos is not None and bool(self.channels)
        # both frames of an event have one position: who has read the first has the event
        self.due = self.missing()

    def hold(self, channel: str, since: int, logged: list[Event]) -> None:
        """
        It is subscribed to C{channel} after a position, and is promised what is logged from there on.
        """
        if channel not in self.channels:
            # a position that is ahead is believed once the log has come that far
            self.channels[channel] = since = max(since, self.pos or 0) if self._resuming else since
            if self.resumes:
                for event in logged[since:]:
                    if channel in event.lanes and (event, channel) not in self.applied:
                        self.due[event.pos, channel] = event

    def missing(self) -> dict[tuple[int, str], Event]:
        """
        What is due of events that it has not applied on any channel.
        """
        applied = {event for event, _ in self.applied}
        return {key: event for key, event in self.due.items() if event not in applied}

    def give_up(self, channel: str, request: int) -> None:
        """
        It is not subscribed to C{channel} any more.

        @param request: the number of the request that says so; answers to earlier ones count no more.
        """
        self._left[channel] = request
        self.channels.pop(channel, None)
        self.due = {key: event for key, event in self.due.items() if key[1] != channel}

    def read(self, arrival: Arrival, events: list[Event], logged: list[Event]) -> None:
        """
        Handle one message.
        """
        message = arrival.message
        if "event" in message:
            if isinstance(message["data"], int):
                self._apply(events[message["data"]], message["channel"])
        elif message["type"] == "gap":
            self.due = {key: event for key, event in self.due.items() if event not in arrival.lost}
        elif message["type"] == "connected":
            self._connected(message, logged)
        elif message["type"] == "ack" and message["id"] in self.requests:
            self._answered(message["id"], message, logged)
        elif message["type"] == "ping":
            self._reach(message)

    def _apply(self, event: Event, channel: str) -> None:
        key = event, channel
        where = f"{self.name}: {event} on {channel}"
        if key in self.applied and self.resumes:
            again = key in self.early or (event.tracked and self.owes)
            promise(again, f"{where}: a duplicate")
        elif self.resumes and event.pos and not self._resuming and self.agent is None:
            promise(event.pos > self._last.get(channel, 0), f"{where}: after {self._last.get(channel)}")
            self._last[channel] = event.pos
        self.applied.add(key)
        self.due.pop((event.pos, channel), None)
        if event.tracked and self.owes:
            self.unacked[event] = None
        if self._resuming:
            self.early.add(key)
        elif self.resumes and event.pos:
            self.pos = max(event.pos, self.pos or 0)

    def _connected(self, message: dict[str, Any], logged: list[Event]) -> None:
        if self.pos is None:
            self._reach(message)
        self._hold_all(0, self._given, (), logged)

    def _reach(self, message: dict[str, Any]) -> None:
        if not self._resuming:
            self.epoch, self.pos = message["epoch"], max(message["pos"], self.pos or 0)

    def _answered(self, number: int, message: dict[str, Any], logged: list[Event]) -> None:
        request = self.requests.pop(number)
        if not message["success"]:
            return
        if "resumed" in message:
            self._resuming = False
            if not message["resumed"]:
                self._start_over(message, logged)
        elif "epoch" in message:
            self._reach(message)
        self._hold_all(number, request, message.get("subscriptions", ()), logged)

    def _start_over(self, message: dict[str, Any], logged: list[Event]) -> None:
        """
        There is a gap: the state is loaded again, and is that of the position that the answer gives.
        """
        self.epoch, self.pos = message["epoch"], message["pos"]
        channels = list(self.channels)
        self.channels.clear()
        self.due.clear()
        for channel in channels:
            self.hold(channel, message["pos"], logged)

    def _hold_all(self, number: int, request: Request, more: Iterable[str], logged: list[Event]) -> None:
        for channel in (*request.channels, *more):
            if number >= self._left.get(channel, 0):
                self.hold(channel, request.head, logged)
