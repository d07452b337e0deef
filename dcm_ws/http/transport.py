"""
Twisted's transports: every use of an attribute that Twisted does not document, each with its reason.

A new version of Twisted may change them without notice; C{tests/http/test_transport.py} then fails and names the
attribute.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection


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


def abort(transport: Any) -> None:
    """
    Drop a connection without waiting for the far end.
    """
    # abortConnection() raises on a TLS connection that has ended by itself
    if transport.connected:
        transport.abortConnection()
