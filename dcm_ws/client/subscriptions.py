"""
What a client is subscribed to, and what it should be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dcm_ws.client.errors import RateLimitedError, RefusedError

AT_ONCE = 16
"""
Messages on their way at once, until the server finds that too much.
"""


class Subscriptions:
    """
    @ivar channels: what is wanted.
    @ivar has: what the server has, while that is settled.
    @ivar pause: seconds between two messages while that is settled, since the server did not take them faster.
    @ivar unsettled: channels to look at before that is settled; None at other times.
    """

    def __init__(self, channels: Iterable[str]) -> None:
        self.channels = dict.fromkeys(channels)
        # what the server might give back to an agent that has left it
        self._left: dict[str, None] = {}
        if "global" not in self.channels:
            self._left["global"] = None
        self.has: set[str] = set()
        self.unsettled: deque[str] | None = None
        self.pause = 0.0

    def wants(self, channel: str, wanted: bool) -> None:
        """
        The user wants to be subscribed to C{channel}, or not.
        """
        (self.channels if wanted else self._left)[channel] = None
        (self._left if wanted else self.channels).pop(channel, None)
        if self.unsettled is not None:
            self.unsettled.append(channel)

    def left(self, channel: str) -> None:
        """
        The server knows that C{channel} was left: it does not give it back, but for C{global}, which all get.
        """
        if channel != "global":
            self._left.pop(channel, None)

    def begin(self) -> None:
        """
        What is subscribed to is to become what is wanted.
        """
        self.unsettled = deque((*self.channels, *self._left))
        self.pause = 0.0

    def next_message(self) -> dict[str, str] | None:
        """
        What to ask for next; None where there is nothing at the moment.
        """
        while self.unsettled:
            channel = self.unsettled.popleft()
            if channel in self.channels and channel not in self.has:
                # messages are executed in order: what is requested after this one may rely on it
                self.has.add(channel)
                return {"type": "subscribe", "channel": channel}
            if channel in self._left and channel in self.has:
                self.has.remove(channel)
                return {"type": "unsubscribe", "channel": channel}
        return None

    def refused(self, message: dict[str, str], error: RefusedError) -> bool:
        """
        What C{next_message} gave was refused.  True where it is to be asked for again, since there was too much at
        once; then it goes on slowly.
        """
        error.channel = message["channel"]
        (self.has.discard if message["type"] == "subscribe" else self.has.add)(error.channel)
        if self.unsettled is None or not isinstance(error, RateLimitedError):
            return False
        self.pause = max(self.pause, error.retry_after or 0.01)
        self.unsettled.append(error.channel)
        return True

    @property
    def settlers(self) -> int:
        """
        How many may ask at once.
        """
        return 1 if self.pause else AT_ONCE

    def end(self) -> None:
        """
        The subscriptions are what they should be, as far as the server allows.
        """
        self.unsettled = None
