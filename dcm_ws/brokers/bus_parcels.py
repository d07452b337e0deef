"""
What travels on a bus: parcels, and the packets that an engine with a maximum size makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

NAMES = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
"""
Names of nodes and topics: good as a part of a NATS subject, and of a channel of PostgreSQL.
"""

HEAD_MOST = 128
"""
Bytes that the head of a packet has, at most.
"""

_VERSION = "1"
_PARTS_MOST = 100_000
_BROKEN_MOST = 16 << 20


class ParcelKind(Enum):
    """
    What a parcel is.
    """

    MESSAGE = "m"
    QUESTION = "q"
    ANSWER = "a"
    NO_ANSWER = "n"


class Parcel(NamedTuple):
    """
    A message on its way.

    @ivar sender: the name of the node that sent it.
    @ivar target: the name of the node that it is for; empty for all others.
    @ivar number: of the messages of a sender; that of the question, for an answer.
    """

    sender: str
    target: str
    kind: ParcelKind
    topic: str
    number: int
    message: bytes


_KINDS = {kind.value: kind for kind in ParcelKind}


def pack(parcel: Parcel, most: int) -> list[bytes]:
    """
    Make packets of a parcel.  Each is a line with the version of this format, the kind, the sender, the topic, the
    number, and which part of how many it is; and then the part of the message.

    @param most: bytes of a packet.
    """
    sender, _, kind, topic, number, message = parcel
    head = f"{_VERSION} {kind.value} {sender} {topic} {number}"
    room = most - HEAD_MOST
    if len(message) <= room:
        return [f"{head} 0 1\n".encode() + message]
    starts = range(0, len(message), room)
    return [
        f"{head} {part} {len(starts)}\n".encode() + message[start : start + room] for part, start in enumerate(starts)
    ]


@dataclass(slots=True)
class _Partial:
    """
    The parts of a message that have arrived.
    """

    topic: str
    kind: str
    number: str
    parts: int
    got: list[bytes] = field(default_factory=list)
    size: int = 0


class Unpacking:
    """
    Makes parcels of the packets of all nodes.

    The packets of one node arrive in their order, so there is one incomplete message of each node at most.

    @param broken: called for each packet or message that is not good.
    @param most: bytes of a message; a larger one is dropped.
    """

    def __init__(self, broken: Callable[[], object], most: int) -> None:
        self._broken = broken
        self._most = most
        self._partial: dict[str, _Partial] = {}
        self._bytes = 0

    def feed(self, packet: bytes) -> Parcel | None:
        """
        Returns the parcel that a packet completes, without its target.
        """
        end = packet.find(b"\n", 0, HEAD_MOST)
        try:
            version, letter, sender, topic, number, part, parts = packet[:end].decode("ascii").split(" ")
            kind = _KINDS[letter] if version == _VERSION and end > 0 else None
            if parts == "1" and kind is not None:
                return Parcel(sender, "", kind, topic, int(number), packet[end + 1 :])
            if kind is None or not 1 < int(parts) <= _PARTS_MOST:
                raise ValueError("unknown kind or version")
            message = self._add(sender, topic, letter, number, int(part), int(parts), packet[end + 1 :])
            return None if message is None else Parcel(sender, "", kind, topic, int(number), message)
        except (ValueError, KeyError):
            self._broken()
            return None

    def _add(
        self, sender: str, topic: str, kind: str, number: str, part: int, parts: int, message: bytes
    ) -> bytes | None:
        partial = self._partial.get(sender)
        if part == 0:
            if partial is not None:
                self._drop(sender)
            partial = self._partial[sender] = _Partial(topic, kind, number, parts)
        elif partial is None:
            return None  # the parts before it were lost, which has been counted, or were sent before this node listened
        elif (partial.topic, partial.kind, partial.number, partial.parts, len(partial.got)) != (
            topic,
            kind,
            number,
            parts,
            part,
        ):
            self._drop(sender)
            return None
        partial.got.append(message)
        partial.size += len(message)
        self._bytes += len(message)
        if partial.size > self._most:
            self._drop(sender)
            return None
        if len(partial.got) == parts:
            self._forget(sender)
            return b"".join(partial.got)
        while self._bytes > _BROKEN_MOST:
            # the one that began first
            self._drop(next(iter(self._partial)))
        return None

    def _drop(self, sender: str) -> None:
        self._forget(sender)
        self._broken()

    def _forget(self, sender: str) -> None:
        self._bytes -= self._partial.pop(sender).size
