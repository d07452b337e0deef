"""
What all engines of the bus have in common: topics, questions and their answers, and what waits to be sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.logger import Logger

from dcm_ws.brokers.bus_parcels import NAMES, Parcel, ParcelKind
from dcm_ws.brokers.bus_queue import BusQueue
from dcm_ws.core.counts import Counts
from dcm_ws.core.deadlines import Deadlines
from dcm_ws.core.ports import AnswerLater, BusReport, Heard

_log = Logger(namespace="dcm_ws.bus")

MORE_THAN_A_MESSAGE = 4 << 10
"""
Bytes by which what is sent between nodes may be larger than a client's message.
"""

_QUESTIONS_MOST = 10_000


def cluster_name(system: str, database: int) -> str:
    """
    The name of the cluster whose nodes share a database.

    @param system: the identifier of the database system, of C{pg_control_system()}.
    @param database: the oid of the database.
    """
    return hashlib.sha256(f"{system} {database}".encode()).hexdigest()[:16]


class BaseBus:
    """
    A L{Bus<dcm_ws.core.ports.Bus>} without an engine.

    An engine says when it is up and when it is not, sends what L{_transmit} is given, and calls L{_receive}.

    @param later: calls a function after so many seconds, with what comes after it; returns what can be cancelled.
    @param now: monotonic seconds.
    @param max_message: bytes of a client's message.
    @param max_waiting: bytes of messages that wait to be sent.
    """

    engine = ""

    def __init__(
        self,
        later: Callable[..., Any],
        now: Callable[[], float],
        counts: Counts,
        *,
        max_message: int,
        max_waiting: int,
    ) -> None:
        self._later = later
        self._counts = counts.bus
        self._crowding = counts.limits.max_bus_waiting
        self._most = max_message + MORE_THAN_A_MESSAGE
        self._queue = BusQueue(now, self._crowded, self._dropped, max_bytes=max_waiting)
        self._listeners: dict[str, Heard] = {}
        self._numbers = count(1)
        # by number: who was asked, and who waits
        self._questions: dict[int, tuple[str, Callable[[bytes | None], object]]] = {}
        self._deadlines: Deadlines[int] = Deadlines(later, now, self._no_answer)
        self._names: set[str] = set()
        self._state = "connecting"
        self._reason = ""
        self._rtt: float | None = None
        self._cluster = ""
        self.node = ""

    def join(self, node: str, cluster: str) -> None:
        """
        See L{Bus<dcm_ws.core.ports.Bus>}, here and for the other methods.
        """
        if NAMES.match(node) is None or NAMES.match(cluster) is None:
            raise ValueError(f"{node!r} cannot be the name of a node, or {cluster!r} that of a cluster")
        if (node, cluster) != (self.node, self._cluster):
            self.node, self._cluster = node, cluster
            self._names.add(node)
            self._named()

    def attach(self, topic: str, heard: Heard) -> None:
        if NAMES.match(topic) is None or topic in self._listeners:
            raise ValueError(f"{topic!r} cannot be the name of a topic, or has a listener already")
        self._listeners[topic] = heard

    def cast(self, topic: str, message: bytes) -> None:
        self._post("", ParcelKind.MESSAGE, topic, next(self._numbers), message)

    def tell(self, node: str, topic: str, message: bytes) -> None:
        self._post(node, ParcelKind.MESSAGE, topic, next(self._numbers), message)

    def ask(
        self, node: str, topic: str, message: bytes, timeout: float, ready: Callable[[bytes | None], object]
    ) -> None:
        number = next(self._numbers)
        full = len(self._questions) >= _QUESTIONS_MOST
        sent = not full and self._post(node, ParcelKind.QUESTION, topic, number, message)
        self._questions[number] = (node, ready)
        if sent:
            self._deadlines.put(number, timeout)
        else:
            self._later(0, self._no_answer, number)

    def report(self) -> BusReport:
        counts = self._counts
        return {
            "engine": self.engine,
            "state": self._state,
            "reason": self._reason,
            "node": self.node,
            "reconnects": max(0, counts.connects - 1),
            "sent": counts.sent,
            "heard": counts.heard,
            "sentBytes": counts.sent_bytes,
            "heardBytes": counts.heard_bytes,
            "waiting": len(self._queue),
            "waitingBytes": self._queue.weight,
            "dropped": counts.dropped,
            "broken": counts.broken,
            "unanswered": counts.unanswered,
            "rtt": self._rtt,
        }

    def _post(self, target: str, kind: ParcelKind, topic: str, number: int, message: bytes) -> bool:
        """
        Send a message now or later.  False if it cannot be sent at all.
        """
        if not self.node or len(message) > self._most:
            self._dropped()
            return False
        parcel = Parcel(self.node, target, kind, topic, number, message)
        if target == self.node:
            self._later(0, self._receive, parcel)
        elif not len(self._queue) and self._may_send():
            self._send(parcel)
        else:
            self._queue.put(parcel)
            self._queued()
        return True

    def _send(self, parcel: Parcel) -> None:
        self._sent(parcel)
        self._transmit(parcel)

    def _sent(self, parcel: Parcel) -> None:
        self._counts.sent += 1
        self._counts.sent_bytes += len(parcel.message)

    def _flush(self) -> None:
        """
        Send what waits, as far as the engine takes it.
        """
        while len(self._queue) and self._may_send():
            for parcel in self._queue.take(1):
                self._send(parcel)

    def _receive(self, parcel: Parcel) -> None:
        """
        A message has arrived.
        """
        if parcel.sender in self._names and parcel.target != self.node:
            return  # an engine may return what this node cast
        self._counts.heard += 1
        self._counts.heard_bytes += len(parcel.message)
        if parcel.kind is ParcelKind.MESSAGE:
            self._hear(parcel)
        elif parcel.kind is ParcelKind.QUESTION:
            self._answer(parcel, self._hear(parcel))
        else:
            question = self._questions.get(parcel.number)
            if question is not None and question[0] == parcel.sender:
                self._close(parcel.number, parcel.message if parcel.kind is ParcelKind.ANSWER else None)

    def _hear(self, parcel: Parcel) -> bytes | AnswerLater | None:
        heard = self._listeners.get(parcel.topic)
        if heard is None:
            return None
        try:
            return heard(parcel.sender, parcel.message)
        except Exception:
            _log.failure("a message from another node, on {topic}, failed", topic=parcel.topic)
            return None

    def _answer(self, question: Parcel, answer: bytes | AnswerLater | None) -> None:
        def send(message: bytes) -> None:
            if not self._post(question.sender, ParcelKind.ANSWER, question.topic, question.number, message):
                self._post(question.sender, ParcelKind.NO_ANSWER, question.topic, question.number, b"")

        if answer is None:
            self._post(question.sender, ParcelKind.NO_ANSWER, question.topic, question.number, b"")
        elif isinstance(answer, bytes):
            send(answer)
        else:
            answer(send)

    def _no_answer(self, number: int) -> None:
        """
        There will be no answer to a question of this node.
        """
        if number in self._questions:
            self._counts.unanswered += 1
            self._close(number, None)

    def _close(self, number: int, answer: bytes | None) -> None:
        _, ready = self._questions.pop(number)
        self._deadlines.drop(number)
        try:
            ready(answer)
        except Exception:
            _log.failure("the answer of another node failed")

    def _is_up(self, where: str) -> None:
        """
        The engine can be used now.
        """
        self._state, self._reason = "up", ""
        self._counts.connects += 1
        _log.info("bus up: {where}", where=where)
        self._flush()

    def _is_down(self, reason: str) -> None:
        """
        The engine cannot be used.
        """
        if self._state != "down":
            _log.warn("bus down: {reason}", reason=reason)
        self._state, self._reason = "down", reason

    def _crowded(self, topic: str) -> None:
        # a name that begins with a space is not that of an agent
        self._crowding.add_of(f" the topic {topic}")
        self._dropped()

    def _dropped(self) -> None:
        self._counts.dropped += 1

    def _broken(self) -> None:
        self._counts.broken += 1

    def _named(self) -> None:
        """
        The node has a name, or another one.
        """
        raise NotImplementedError

    def _queued(self) -> None:
        """
        There is something to send that the engine did not take at once.
        """

    def _may_send(self) -> bool:
        """
        Whether the engine takes a message now.
        """
        raise NotImplementedError

    def _transmit(self, parcel: Parcel) -> None:
        """
        Send a message.
        """
        raise NotImplementedError
