"""
New connections, until each has sent its first request head.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from dcm_ws.core.counts import LimitCounts
from dcm_ws.core.deadlines import Deadlines
from dcm_ws.http.addresses import UNIX
from dcm_ws.http.event_source import TOO_MANY_CONNECTIONS, comes_back_response, is_event_source
from dcm_ws.http.refusals import error_response
from dcm_ws.http.request_headers import read_headers
from dcm_ws.http.shares import Share, address_of
from dcm_ws.http.transport import ProxiedConnection, abort
from dcm_ws.http.turns import Turns

HEADS_A_TURN = 32
"""
Requests on new connections that are read in one turn of the reactor.
"""

GOODBYE = 5.0
"""
Seconds that the far end has to answer the end of a TLS connection.
"""

_TLS = b"\x16\x03"
"""
What a TLS handshake begins with (RFC 8446, section 5.1).
"""


AwaitsKey = Callable[[bytes, str, Callable[[], object]], bool]


class WaitingRoom:
    """
    The connections of a port that have not sent a request head yet, and the limits that they have in common.

    @param share: counts them by the address of the far end.
    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param clock: runs what has to wait for a later turn.
    @param limits: where crossed limits are counted.
    @param head_timeout: seconds within which a connection must have sent its request head.
    @param max_head: bytes of a request head.
    @param most: connections at once; beyond it the oldest is closed.
    @param trusts: whether the far end, given its address, is a proxy.  Its connections are not limited per address
        before their heads.
    @param choose: returns the protocol for a connection, given its request line and headers; None if there is no room
        for another HTTP connection.
    @param awaits_key: as in L{Port<dcm_ws.http.port.Port>}, for all connections.
    """

    def __init__(
        self,
        share: Share,
        *,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        clock: IReactorTime,
        limits: LimitCounts,
        head_timeout: float,
        max_head: int,
        most: int,
        trusts: Callable[[str], bool],
        choose: Callable[[bytes, Reception], IProtocol | None],
        awaits_key: AwaitsKey | None = None,
    ) -> None:
        self._share = share
        self._now = now
        self.wall_ms = wall_ms
        self.limits = limits
        self._head_timeout = head_timeout
        self.max_head = max_head
        self._most = most
        self.trusts = trusts
        self.choose = choose
        self.awaits_key = awaits_key
        self.turns = Turns(clock, HEADS_A_TURN)
        # in the order of arrival, and so of their deadlines
        self._deadlines: dict[Reception, float] = {}
        self.goodbyes: Deadlines[Any] = Deadlines(clock.callLater, now, abort)

    def enter(self, reception: Reception) -> None:
        """
        Wait for the request head of a new connection.  It is closed if its address has too many that wait.
        """
        if self._share.refuses(reception.charged):
            reception.drop()
            return
        self._share.enter(reception.charged)
        if len(self._deadlines) >= self._most:
            self.limits.max_waiting.add()
            next(iter(self._deadlines)).drop()
        self._deadlines[reception] = self._now() + self._head_timeout

    def leave(self, reception: Reception) -> None:
        """
        The connection is handed over, refused or lost.
        """
        if self._deadlines.pop(reception, None) is not None:
            self._share.leave(reception.charged)

    def sweep(self) -> None:
        """
        Refuse the connections whose time is up.
        """
        now = self._now()
        late = []
        for reception, deadline in self._deadlines.items():
            if deadline > now:
                break
            late.append(reception)
        for reception in late:
            self.limits.handshake_timeout.add()
            reception.refuse(HTTPStatus.REQUEST_TIMEOUT, "No request came in time; try again")

    def drop(self) -> None:
        """
        Close all of them.
        """
        for reception in list(self._deadlines):
            reception.drop()


class Reception(Protocol):
    """
    A connection until its request head is there.  Then it is handed over to the protocol that the head asks for.

    @ivar charged: the address that the connection is counted by until then.
    """

    transport: Any
    charged: str

    def __init__(self, room: WaitingRoom, address: IAddress | None) -> None:
        self._room = room
        self.address = address
        self._data = b""
        self._end: int | None = None
        self._dropped = False
        self._paused = False

    def connectionMade(self) -> None:
        # the PROXY protocol names the client in its first bytes, which are still to come
        proxied = isinstance(self.transport, ProxiedConnection) or self._room.trusts(self.peer)
        self.charged = UNIX if proxied else self.peer
        self._room.enter(self)

    @property
    def peer(self) -> str:
        """
        The address of the far end.
        """
        return address_of(self.transport.getPeer())

    def dataReceived(self, data: bytes) -> None:
        if self._dropped:
            return
        # the end of the head may be spread over two reads
        seen = max(0, len(self._data) - 3)
        self._data += data
        if self._end is not None:
            return
        if self._data.startswith(_TLS):
            # without an answer, it would wait for the time-out
            self.refuse(HTTPStatus.BAD_REQUEST, "This port speaks HTTP without TLS: use ws:// or http://")
            return
        longest = self._room.max_head
        end = self._data.find(b"\r\n\r\n", seen)
        if (end < 0 and len(self._data) > longest) or end > longest:
            self._room.limits.max_head_size.add()
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The request head is longer than {longest} bytes")
        elif end >= 0:
            self._end = end + 2
            if not self._room.turns.do(self._look):
                self._pause()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._dropped = True
        self._room.leave(self)

    def refuse(self, status: HTTPStatus, reason: str, code: str = "") -> None:
        """
        Answer with an error, and close the connection.
        """
        self.transport.write(error_response(status, reason, self._room.wall_ms(), code))
        self.drop()

    def drop(self) -> None:
        """
        Close the connection.
        """
        self._room.leave(self)
        self._dropped = True
        self._data = b""
        transport = self.transport
        if isinstance(transport, ProtocolWrapper):
            # TLS waits for the far end to close its side, or even for the end of its handshake
            self._room.goodbyes.put(transport, GOODBYE)
        transport.loseConnection()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def _look(self) -> None:
        if self._dropped:
            return
        awaits_key = self._room.awaits_key
        if awaits_key is not None and awaits_key(self._data[: self._end], self.peer, self._hand_over):
            self._pause()
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._dropped:
            return
        self._room.leave(self)
        data, self._data = self._data, b""
        protocol = self._room.choose(data[: self._end], self)
        if protocol is None:
            self._turn_away(data[: self._end])
            return
        transport = self.transport
        set_protocol(transport, protocol)
        if self._paused:
            transport.resumeProducing()
        protocol.makeConnection(transport)
        protocol.dataReceived(data)

    def _turn_away(self, head: bytes) -> None:
        reason = "Too many HTTP connections; try again"
        method, target, *_ = *head.split(b" ", 2), b"", b""
        if is_event_source(method, target, read_headers(head).get("accept", "")):
            self.transport.write(comes_back_response(TOO_MANY_CONNECTIONS, reason))
            self.drop()
        else:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, reason, TOO_MANY_CONNECTIONS)


def set_protocol(transport: Any, protocol: IProtocol) -> None:
    """
    Give what arrives from now on to C{protocol}.
    """
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
