"""
The registration of a database connection's socket with the reactor.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.python.failure import Failure


class Registration:
    """
    Keeps the socket of a connection registered for reading, whichever of the connection and its cursors reads now.

    txpostgres removes each of them from the reactor before a read and adds it again, which costs two system calls a
    read; here that only changes who is called.  Registered is a duplicate of the file descriptor, which remains valid
    when libpq closes its own in a read that fails.

    It is the C{reactor} of the connection and of its cursors once they are connected.

    @param reactor: the real one.
    @param descriptor: the file descriptor of the socket.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = os.dup(descriptor)
        self._registered = False
        self._reader: Any = None
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        self.addWriter = reactor.addWriter
        self.removeWriter = reactor.removeWriter

    def addReader(self, reader: Any) -> None:
        self._reader = reader
        if not self._registered and self._descriptor >= 0:
            self._registered = True
            self._reactor.addReader(self)

    def removeReader(self, reader: Any) -> None:
        if reader is self._reader:
            self._reader = None

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "database"

    def doRead(self) -> BaseException | None:
        reader = self._reader
        if reader is None:
            # nobody wants to read now
            self._registered = False
            self._reactor.removeReader(self)
            return None
        failure: BaseException | None = reader.doRead()
        if failure is not None:
            # for connectionLost(), which the reactor calls next
            self._reader = reader
        return failure

    def connectionLost(self, reason: Failure) -> None:
        reader = self._reader
        self.close()
        if reader is not None:
            reader.connectionLost(reason)

    def close(self) -> None:
        """
        Stop reading.
        """
        self._reader = None
        if self._registered:
            self._registered = False
            self._reactor.removeReader(self)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
