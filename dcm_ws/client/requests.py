"""
What a client has asked the server, until it is answered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from dcm_ws.client.errors import DCMError

Reply = Callable[[dict[str, Any] | DCMError], None]


class Requests:
    """
    The requests, the pings and the greeting of a connection that have no answer yet.
    """

    def __init__(self) -> None:
        self._next_id = 1
        self._requests: dict[str, Reply] = {}
        # a pong does not say which ping it answers, but they come in order; None if the ping has timed out
        self._pings: OrderedDict[str, Reply | None] = OrderedDict()
        self._greeting: Reply | None = None

    def new_name(self) -> str:
        """
        The id of the next request.
        """
        name = f"r{self._next_id}"
        self._next_id += 1
        return name

    def put(self, name: str, reply: Reply) -> None:
        """
        A request is sent.
        """
        self._requests[name] = reply

    def put_ping(self, name: str, reply: Reply) -> None:
        """
        A ping is sent.
        """
        self._pings[name] = reply

    def expect_greeting(self, reply: Reply) -> None:
        """
        The greeting is awaited.
        """
        self._greeting = reply

    @property
    def asking(self) -> bool:
        """
        Is an answer awaited, other than the greeting?
        """
        return bool(self._requests) or any(self._pings.values())

    def give_up(self, name: str) -> None:
        """
        Nothing waits for the answer to a request or a ping any more.
        """
        self._requests.pop(name, None)
        if name in self._pings:
            self._pings[name] = None

    def take(self, name: str) -> Reply | None:
        """
        What waits for the answer to a request, or for the refusal of a ping: that answer has come.
        """
        return self._requests.pop(name, None) or self._pings.pop(name, None)

    def pong(self, frame: dict[str, Any]) -> None:
        """
        The answer to the oldest ping has come.
        """
        if self._pings:
            _, reply = self._pings.popitem(last=False)
            if reply is not None:
                reply(frame)

    def greeted(self, frame: dict[str, Any]) -> None:
        """
        The greeting has come.
        """
        reply, self._greeting = self._greeting, None
        if reply is not None:
            reply(frame)

    def fail(self, error: Callable[[], DCMError]) -> None:
        """
        The connection has ended: all that wait get an error each.
        """
        waiting = [*self._requests.values(), *filter(None, (*self._pings.values(), self._greeting))]
        self._greeting = None
        self._requests.clear()
        self._pings.clear()
        for reply in waiting:
            reply(error())
