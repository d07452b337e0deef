"""
Listening sockets that a supervisor opens, and that its workers accept connections from.

Both use Twisted's endpoints, with an object in place of the reactor: that of the supervisor opens the sockets and
accepts nothing, and that of a worker takes over the sockets that it has inherited.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from dcm_ws.app.listening import Endpoints
from dcm_ws.http.endpoints import take_over


class Inherited(msgspec.Struct, frozen=True):
    """
    A listening socket that a worker inherits.

    @ivar descriptor: in the worker.
    @ivar family: such as C{AF_INET}.
    @ivar given: systemd has opened it, so that the endpoint cannot be read in the worker.
    """

    descriptor: int
    family: int
    given: bool


@implementer(IListeningPort)
class OpenedPort:
    """
    The sockets of an endpoint: one for each worker, or one for all.

    @ivar given: as in L{Inherited}.
    """

    def __init__(self, sockets: list[socket.socket], *, given: bool = False) -> None:
        self.sockets = sockets
        self.given = given
        for one in sockets:
            # it belongs to the open file, which the workers have in common with this process
            one.setblocking(False)

    def startListening(self) -> None:
        """
        Do nothing: the sockets listen already.
        """

    def stopListening(self) -> None:
        """
        Close the sockets; the workers may still have them.
        """
        for one in self.sockets:
            one.close()

    def getHost(self) -> IAddress:
        return _address_of(self.sockets[0])

    def of_worker(self, worker: int) -> socket.socket:
        """
        The socket from which a worker accepts connections.

        @param worker: counted from 0.
        """
        return self.sockets[worker % len(self.sockets)]


class _UNIXPort(OpenedPort):
    """
    A Unix socket, whose file is removed at the end.
    """

    def __init__(self, port: Any) -> None:
        super().__init__([port.socket])
        self._port = port

    def stopListening(self) -> Any:
        return self._port.stopListening()

    def getHost(self) -> IAddress:
        host: IAddress = self._port.getHost()
        return host


class _Opener:
    """
    Opens the sockets of endpoints, in place of a reactor.
    """

    def __init__(self, reactor: Any, workers: int) -> None:
        self._reactor = reactor
        self._workers = workers

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> OpenedPort:
        return OpenedPort(_open_tcp(port, backlog, interface, self._workers))

    def listenSSL(
        self, port: int, factory: IProtocolFactory, contextFactory: object, backlog: int = 50, interface: str = ""
    ) -> OpenedPort:
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, *arguments: Any, **named: Any) -> OpenedPort:
        port = self._reactor.listenUNIX(*arguments, **named)
        port.stopReading()
        return _UNIXPort(port)

    def adoptStreamPort(self, descriptor: int, family: int, factory: IProtocolFactory) -> OpenedPort:
        return OpenedPort([socket.fromfd(descriptor, family, socket.SOCK_STREAM)], given=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Sockets:
    """
    The listening sockets of a service with several workers.

    They stay open while a worker is restarted: its connections wait meanwhile, and are not lost.
    """

    def __init__(self, reactor: Any, workers: int, *, production: bool) -> None:
        self._endpoints = Endpoints(_Opener(reactor, workers), production=production)

    async def listen(self, descriptions: Iterable[str], *, is_public: bool) -> None:
        """
        Open the sockets of endpoints.

        @param is_public: clients connect there.
        @raise StartError: a port is in use, or an endpoint is invalid.
        """
        for description in descriptions:
            await self._endpoints.listen(description, Factory(), is_public=is_public)

    @property
    def number(self) -> int | None:
        """
        The number of the first TCP port.
        """
        return self._endpoints.number

    async def close(self) -> None:
        """
        Close all of them.
        """
        await self._endpoints.close()

    def of_worker(self, worker: int, first: int) -> Iterator[tuple[socket.socket, Inherited]]:
        """
        The sockets of a worker, in the order of their endpoints, and what it has to know of them.

        @param worker: counted from 0.
        @param first: the descriptor that the first one gets in the worker; the others follow.
        """
        for descriptor, port in enumerate(self._endpoints.ports, first):
            assert isinstance(port, OpenedPort)
            one = port.of_worker(worker)
            yield one, Inherited(descriptor, one.family, port.given)


class InheritedEndpoints(Endpoints):
    """
    Accepts connections from inherited sockets.

    @param sockets: in the order of the endpoints that will be listened on.
    """

    def __init__(self, reactor: Any, sockets: Iterable[Inherited]) -> None:
        super().__init__(reactor, production=True)
        self._sockets = list(sockets)

    async def listen(self, description: str, factory: IProtocolFactory, *, is_public: bool) -> None:
        inherited = self._sockets.pop(0)
        adopter = _Adopter(self._reactor, inherited)
        if inherited.given:
            port = take_over(description, factory, adopter.adopt)
            self.add(port)
        else:
            self.add(await self.open(adopter, description, factory))

    async def close(self) -> None:
        for port in self.ports:
            if isinstance(port.getHost(), UNIXAddress):
                # Twisted would remove the file of the socket, which the other workers listen on
                port.stopReading()  # type: ignore[attr-defined]
            else:
                await maybeDeferred(port.stopListening)


class _Adopter:
    """
    Takes over an inherited socket, in place of a reactor.
    """

    def __init__(self, reactor: Any, inherited: Inherited) -> None:
        self._reactor = reactor
        self._inherited = inherited

    def adopt(self, factory: IProtocolFactory) -> Any:
        descriptor, family = self._inherited.descriptor, self._inherited.family
        try:
            return self._reactor.adoptStreamPort(descriptor, family, factory)
        finally:
            # the port has a duplicate; with two, it would listen on after its end
            os.close(descriptor)

    def listenTCP(self, port: int, factory: IProtocolFactory, *more: object, **named: object) -> Any:
        return self.adopt(factory)

    def listenSSL(
        self, port: int, factory: IProtocolFactory, contextFactory: Any, *more: object, **named: object
    ) -> Any:
        return self.adopt(TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(self, address: object, factory: IProtocolFactory, *more: object, **named: object) -> Any:
        return self.adopt(factory)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


def _open_tcp(port: int, backlog: int, interface: str, count: int) -> list[socket.socket]:
    """
    Open so many sockets on one address, among which the kernel divides the connections (C{SO_REUSEPORT} in socket(7)).

    @raise CannotListenError: the port is in use.
    """
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    opened: list[socket.socket] = []
    try:
        address: Any = (interface, port)
        if family == socket.AF_INET6:
            # with the zone of a link-local address
            address = socket.getaddrinfo(interface, port, flags=socket.AI_NUMERICHOST)[0][4]
        if port:
            # another service of this account that does the same would not be an error otherwise
            _bound(family, address, reuse_port=False).close()
        for _ in range(count):
            one = _bound(family, address, reuse_port=True)
            opened.append(one)
            address = one.getsockname()
            one.listen(backlog)
    except OSError as error:
        for one in opened:
            one.close()
        raise CannotListenError(interface, port, error) from None
    return opened


def _bound(family: int, address: Any, *, reuse_port: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        one.bind(address)
    except BaseException:
        one.close()
        raise
    return one


def _address_of(one: socket.socket) -> IAddress:
    name = one.getsockname()
    if one.family == socket.AF_INET:
        return IPv4Address("TCP", *name)
    if one.family == socket.AF_INET6:
        return IPv6Address("TCP", *name)
    return UNIXAddress(name)
