"""
What the nodes of a cluster say to each other of who is connected.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

HEARTBEAT_SECONDS = 2.0
"""
Seconds between two heartbeats, at least.
"""

SUMS = 1 << 64
"""
Sums over connections are counted up to that, and then from 0.
"""

_KINDS = frozenset({"join", "leave", "beat", "quit", "ask", "page", "suspect"})


class Member(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """
    A connection of an agent.

    @ivar session: the DCM session; None without one.
    """

    client: str
    agent: str
    session: str | None


class Said(msgspec.Struct, array_like=True, frozen=True):
    """
    What a node says of its connections.  Newer versions may say more behind that.

    @ivar kind: C{join} and C{leave} of a connection, C{beat}, C{quit} of the node, C{ask} for its connections, after
        the client in C{after}; C{page}, which is the answer; and C{suspect}, if the node in C{after} may be gone.
    @ivar number: counts the joins and leaves of the node.
    @ivar members: of a join or a leave, the connection; of a page, all of it.
    @ivar connections: of a beat, how many there are.
    @ivar sum: of a beat, the sum over them.
    @ivar complete: of a page, nothing comes after it.
    @ivar metrics: of a beat, a client of the node is subscribed to the metrics.
    @ivar interval: seconds between two heartbeats of the node.
    """

    kind: str
    number: int = 0
    members: list[Member] = []
    connections: int = 0
    sum: int = 0
    after: str = ""
    complete: bool = False
    metrics: bool = False
    interval: float = HEARTBEAT_SECONDS


write = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Said).decode


def read(message: bytes) -> Said | None:
    """
    What a message says; None if only a node of another version understands it.
    """
    try:
        said = _decode(message)
    except msgspec.DecodeError:
        return None
    return said if said.kind in _KINDS else None


def sum_of(member: Member) -> int:
    """
    What a connection adds to the sum over the connections of a node.
    """
    digest = blake2b(f"{member.client} {member.agent}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def as_event(member: Member) -> dict[str, Any]:
    """
    The data of the events that announce a connection.
    """
    return {"agent_id": member.agent, "client_id": member.client, "session_id": member.session}
