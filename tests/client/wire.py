"""
The shared core of the Python clients, connected in memory to the server's core: a test decides when each message
arrives, and when the connection breaks.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from dcm_ws.client.conversation import Ask, GetToken, Greeting, Request, Together, converse
from dcm_ws.client.core import ClientCore
from dcm_ws.client.errors import DCMError
from dcm_ws.client.events import Done, Event, Listener
from dcm_ws.client.gaps import Gap
from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin, Session
from tests.fakes import WALL_MS, RecordingPeer

LOST = 1006


class SlowPeer(RecordingPeer):
    """
    A peer that takes what is replayed only when the test says so.
    """

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self.replaying = frames

    def read(self, most: int = 1 << 30) -> None:
        if self.replaying is not None:
            super().read(most)


class Wire:
    """
    One client, and its connection to a server.

    @ivar shown: the events that the client has shown, in order.
    @ivar handled: the ids of those that have been handled.
    @ivar gaps: the gaps that it has reported.
    @ivar settled: the client has resumed and subscribed on this connection.
    """

    def __init__(self, server: Core, **options: Any) -> None:
        self.server = server
        self.shown: list[Event] = []
        self.handled: set[str] = set()
        self.gaps: list[Gap] = []
        self.settled = False
        self._open: deque[tuple[Event, Done]] = deque()
        self._outgoing: deque[str] = deque()
        self._incoming: deque[dict[str, Any]] = deque()
        self._session: Session | None = None
        self._peer: SlowPeer | None = None
        self._steps: Generator[Request, Any, None] | None = None
        self._observer = options.get("observer", False)
        settings: dict[str, Any] = {"agent_id": None, "session_id": None, "channels": ["global"]}
        self.client = ClientCore(
            **settings | options,
            fresh_tokens=False,
            queue_max=1000,
            random=lambda: 1.0,
            room=lambda: None,
            wall_ms=lambda: WALL_MS,
            gap=self.gaps.append,
        )
        listener = Listener("*", None, self._take)
        self.client.events.listeners[listener] = None

    def _take(self, event: Event, done: Done) -> None:
        self.shown.append(event)
        self._open.append((event, done))

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    # what the test does

    def connect(self) -> None:
        """
        Open a connection, and begin the conversation.
        """
        self._peer = SlowPeer()
        self._session = self.server.hub.connect(self._peer, Origin(observer=self._observer))
        self.client.opened(self._outgoing.append)
        self.settled = False
        self._steps = _flat(converse(self.client, timeout=1, complain=self._complain))
        self._go_on(self._steps, lambda steps: next(steps))

    def cut(self) -> None:
        """
        The connection breaks: what is under way is lost.
        """
        session, self._session = self._session, None
        self._outgoing.clear()
        self._incoming.clear()
        self._peer = None
        self._steps = None
        if session is not None:
            self.server.hub.disconnect(session)
        self.client.lost(LOST, "")

    def subscribe(self, channel: str) -> None:
        """
        The user subscribes.
        """
        self.client.wants(channel, True)
        if self.settled:
            self.client.request({"type": "subscribe", "channel": channel}, lambda answer: None)

    def server_reads(self, most: int = 1 << 30) -> bool:
        """
        The server reads messages of the client.
        """
        some = False
        while self._outgoing and most and self._session is not None:
            self.server.interpreter.receive(self._session, self._outgoing.popleft())
            most -= 1
            some = True
        return some

    def client_reads(self, most: int = 1 << 30) -> bool:
        """
        The client reads messages of the server.
        """
        if self._peer is not None:
            self._incoming += self._peer.take()
        some = False
        while self._incoming and most:
            assert self.client.received(json.dumps(self._incoming.popleft())) is None
            most -= 1
            some = True
        return some

    def replay(self, most: int = 1 << 30) -> None:
        """
        The server replays some of the log.
        """
        if self._peer is not None:
            self._peer.read(most)

    def close_if_silent(self) -> None:
        """
        The connection ends if the server has closed it.
        """
        if self._peer is not None and self._peer.closed is not None:
            self.cut()

    def handle(self, number: int = 0) -> None:
        """
        The user has handled one of the events that it has got.
        """
        if self._open:
            self._open.rotate(-number)
            event, done = self._open.popleft()
            self._open.rotate(number)
            self.handled.add(event.id)
            done(True)

    def finish(self) -> None:
        """
        Everything arrives, and is handled.
        """
        for _ in range(1000):
            self.replay()
            if not (self.server_reads() | self.client_reads()):
                break
            while self._open:
                self.handle()
        assert self.settled

    def restart(self, **options: Any) -> Wire:
        """
        The program crashes, and starts again with the position that it has stored.
        """
        state = self.client.places.state(self.client.events.unhandled)
        self.cut()
        again = Wire(self.server, **options)
        if state is not None:
            again.client.places.load(*state)
        return again

    # the conversation

    def _complain(self, error: DCMError) -> None:
        raise AssertionError(error)

    def _go_on(
        self, steps: Generator[Request, Any, None], step: Callable[[Generator[Request, Any, None]], Any]
    ) -> None:
        def reply(answer: dict[str, Any] | DCMError) -> None:
            if steps is not self._steps:
                return
            if isinstance(answer, DCMError):
                self._go_on(steps, lambda steps: steps.throw(answer))
            else:
                self._go_on(steps, lambda steps: steps.send(answer))

        while True:
            try:
                request = step(steps)
            except StopIteration:
                self.settled = True
                return
            match request:
                case Greeting():
                    self.client.expect_greeting(reply)
                    return
                case Ask(message):
                    self.client.request(message, reply)
                    return
                case GetToken():
                    step = _no_token


def _no_token(steps: Generator[Request, Any, None]) -> Any:
    return steps.send(None)


def _flat(steps: Generator[Request, Any, None]) -> Generator[Request, Any, None]:
    """
    The same requests, one after the other.
    """
    try:
        request = next(steps)
        while True:
            if isinstance(request, Together):
                for part in request.parts:
                    yield from _flat(part)
                request = steps.send(None)
                continue
            try:
                answer = yield request
            except DCMError as error:
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration:
        return
