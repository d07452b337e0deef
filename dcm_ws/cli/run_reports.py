"""
Publishes the events of C{dcm-ws run} in a thread, so that the command does not wait for the service.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

SEND_SECONDS = 2.0
"""
Seconds that publishing one event may take.
"""

_Event = dict[str, Any]


class Sender(Protocol):
    """
    What publishes events: an L{Outbox<dcm_ws.cli.outbox.Outbox>}.
    """

    def publish(self, event: _Event, seconds: float, *, keep: bool = True) -> None:
        """
        Publish an event, or keep it.

        @raise OSError: neither was possible.
        """


class Reports:
    """
    @param sender: publishes the events.
    @param channel: on which channel.
    @param family: C{task} or C{subtask}.
    @param data: what all events have.
    @param heartbeat: seconds between two heartbeats.
    @param report: called with what goes wrong, as a line.
    """

    def __init__(
        self,
        sender: Sender,
        channel: str,
        family: str,
        data: _Event,
        *,
        heartbeat: float,
        report: Callable[[str], object],
    ) -> None:
        self._sender = sender
        self._channel = channel
        self._family = family
        self._data = data
        self._heartbeat = heartbeat
        self._report = report
        self._key = os.urandom(12).hex()
        self._began = time.monotonic()
        self._waiting: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def begin(self) -> None:
        """
        The command is about to start.
        """
        self._began = time.monotonic()
        self._waiting.put(self._event(f"{self._family}.created", {}, key="created"))
        self._thread.start()

    def end(self, status: int, more: _Event) -> None:
        """
        The command has ended.  Returns when the event has been published or kept.

        @param status: its exit status; 0 is success.
        @param more: what else the event says.
        """
        name = f"{self._family}.{'failed' if status else 'completed'}"
        duration = round(time.monotonic() - self._began, 3)
        self._waiting.put(self._event(name, {"exit_status": status, "duration_s": duration} | more, key="ended"))
        self._thread.join()

    def _event(self, name: str, more: _Event, *, key: str | None = None) -> _Event:
        data = self._data | {"at": time.time_ns() // 1_000_000} | more
        event = {"channel": self._channel, "event": name, "data": data}
        return event if key is None else event | {"key": f"run-{self._key}-{key}"}

    def _work(self) -> None:
        event = self._waiting.get()
        while True:
            self._publish(event, keep=True)
            if event["data"].get("exit_status") is not None:
                return
            event = self._next()

    def _next(self) -> _Event:
        """
        Publish heartbeats until there is another event.
        """
        while True:
            try:
                return self._waiting.get(timeout=self._heartbeat)
            except queue.Empty:
                elapsed = round(time.monotonic() - self._began, 3)
                self._publish(self._event("agent.heartbeat", {"elapsed_s": elapsed}), keep=False)

    def _publish(self, event: _Event, *, keep: bool) -> None:
        try:
            self._sender.publish(event, SEND_SECONDS, keep=keep)
        except Exception as error:
            # whatever it is, it must not keep the command from running
            self._report(f"{event['event']} is lost: {type(error).__name__}: {error}")
