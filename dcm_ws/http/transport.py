"""
Twisted's transports and HTTP channels: every use of an attribute that Twisted does not document, each with its reason.

A new version of Twisted may change them without notice; C{tests/http/test_transport.py} then fails and names the
attribute.
"""

from __future__ import annotations

import socket
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection
from twisted.logger import Logger

# the package exports only an endpoint, which takes neither another protocol nor a factory without log lines
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

# Twisted logs a line for each HEAD request, and for each connection that is idle for too long
_SILENCE = Logger(observer=lambda event: None)  # type: ignore[arg-type]


def is_plain_tcp(transport: Any) -> bool:
    """
    Return True for a TCP connection without TLS.
    """
    # set by startTLS() on a connection of the same class
    return isinstance(transport, Connection) and not transport.TLS


def read_at_most(transport: Any, size: int) -> None:
    """
    Limit the bytes that one turn of the reactor reads from a TCP connection.
    """
    # read by Connection.doRead(); Twisted has no setter
    transport.bufferSize = size


def send_now(transport: Any, data: bytes) -> int:
    """
    Give C{data} to the kernel at once, if nothing is waiting in a plain TCP connection.

    @return: the bytes that the kernel took, or -1 if other bytes are waiting: C{data} must go after them.
    """
    # transport.write() would cost three system calls more: it sends in the next turn, and selects the socket for that
    if transport._tempDataBuffer or transport.dataBuffer:
        return -1
    try:
        sent: int = transport.socket.send(data)
    except OSError:
        # full or broken: the transport finds out which
        return 0
    return sent


def join_last_writes(transport: Any, count: int) -> None:
    """
    Join the last C{count} writes that are waiting in a TCP connection into one.
    """
    # the list that write() appends to; its total length stays the same
    pieces = transport._tempDataBuffer
    pieces[-count:] = [b"".join(pieces[-count:])]


def unsent(transport: Any) -> int:
    """
    Return the bytes that a transport, and those below it, hold because the far end does not read them.
    """
    waiting = 0
    while transport is not None and not isinstance(transport, FileDescriptor):
        # TLS holds the application's bytes until it may write them; the TCP connection below it holds encrypted ones
        waiting += sum(map(len, getattr(transport, "_appSendBuffer", ())))
        transport = getattr(transport, "transport", None)
    if transport is not None:
        # what is being sent, without what the kernel has taken of it, and what write() has added since
        waiting += len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return waiting


def has_unread(transport: Any) -> bool:
    """
    Return True if bytes from the far end are waiting in the kernel.
    """
    below = transport
    while below is not None and not isinstance(below, FileDescriptor):
        below = getattr(below, "transport", None)
    connection: Any = below
    if connection is None or not connection.connected:
        return False
    try:
        return bool(connection.socket.recv(1, socket.MSG_PEEK))
    except OSError:
        # BlockingIOError: there are none
        return False


def unacknowledged(transport: Any) -> bool:
    """
    Return True if the far end has not taken all that was sent to it, as far as the system can tell.
    """
    if unsent(transport):
        return True
    below = transport
    while below is not None and not isinstance(below, FileDescriptor):
        below = getattr(below, "transport", None)
    connection: Any = below
    if connection is None or not connection.connected:
        return False
    try:
        # of TCP on Linux: what is in the queue of the kernel, or on its way
        waiting = ioctl(connection.socket.fileno(), TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        # another system, another kind of socket, or one that is closed
        return False
    return any(waiting)


def abort(transport: Any) -> None:
    """
    Drop a connection without waiting for the far end.
    """
    # abortConnection() raises on a TLS connection that has ended by itself
    if transport.connected:
        transport.abortConnection()


class LeanRequest(Request):
    """
    An HTTP request that Twisted logs nothing about.
    """

    _log = _SILENCE


class LeanChannel(HTTPChannel):
    """
    An HTTP connection that Twisted logs nothing about, and its insides under names of ours.
    """

    transport: Any

    _log = _SILENCE

    @property
    def is_answering(self) -> bool:
        """
        True while a response is being made or sent.
        """
        return bool(self._handlingRequest)

    @property
    def has_partial_line(self) -> bool:
        """
        True if bytes of a request head that is not complete are kept.
        """
        # of LineReceiver, which looks for the end of the line in it
        return bool(self._buffer)

    @property
    def has_pipelined(self) -> bool:
        """
        True if bytes are kept that came while a response was being made.
        """
        return any(self._dataBuffer)

    def abort_in_time(self) -> None:
        """
        Abort the connection in C{abortTimeout} seconds, unless it has ended by then.
        """
        # as timeoutConnection() does; connectionLost() cancels it
        if self._abortingCall is None:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)

    def forceAbortClient(self) -> None:
        # as in abort()
        if self.transport.connected:
            super().forceAbortClient()
        else:
            self._abortingCall = None

    @property
    def target(self) -> bytes:
        """
        The target of the request whose headers have just arrived.
        """
        # a request learns of it only with its whole body
        return bytes(self._path)

    def invite_body(self) -> None:
        """
        Tell a client that waits for it to send the body of its request (C{Expect: 100-continue}).
        """
        super()._send100Continue()

    def _send100Continue(self) -> None:
        # called by Twisted, for each request that expects it
        self.invite_body()

    def reject_request(self) -> None:
        """
        Respond to a request that cannot be parsed, and close the connection.
        """
        raise NotImplementedError

    def _respondToBadRequestAndDisconnect(self) -> None:
        # called by Twisted, whose own response has no body
        self.reject_request()


class ProxiedConnection(HAProxyProtocolWrapper):
    """
    A connection of a proxy that sends the addresses of its client first (PROXY protocol).
    """

    def dataReceived(self, data: bytes) -> None:
        # there is a parser from the first bytes on
        if self._parser is None and data.startswith(b"PROXY UNKNOWN\r\n"):
            # valid without addresses (section 2.1), but Twisted rejects that
            data = data.replace(b"\r\n", b" \r\n", 1)
        try:
            super().dataReceived(data)
        except ValueError:
            # Twisted checks neither ports nor the bytes of addresses; later errors are not its own
            if self._proxyInfo is not None:
                raise
            self.loseConnection()


class ProxiedFactory(HAProxyWrappingFactory):
    """
    Makes L{ProxiedConnection}s, without a line in the log for each port that is opened or closed.
    """

    protocol = ProxiedConnection  # type: ignore[assignment]
    noisy = False
