"""
The endpoints that the service listens on.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from dcm_ws.app.errors import StartError
from dcm_ws.http.endpoints import PROXIED, is_open_to_all, listen
from dcm_ws.http.port import bound_unsent
from dcm_ws.postgres.connection import one_line

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""
How this machine reaches a port that listens on all of its addresses.
"""

_log = Logger(namespace="dcm_ws.service.DCMService")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Endpoints:
    """
    Listens on endpoints, and logs their addresses.

    @param production: development mode warns of addresses that other machines can reach.

    @ivar ports: the listening ports, in the order in which they were opened.
    @ivar number: the number of the first TCP port, once there is one.  A port that no longer listens does not report
        its own.
    @ivar address: host and number of that port; empty if there is none.
    """

    def __init__(self, reactor: Any, *, production: bool) -> None:
        self._reactor = reactor
        self._production = production
        self.ports: list[IListeningPort] = []
        self.number: int | None = None
        self.address = ""

    async def listen(self, description: str, factory: IProtocolFactory, *, is_public: bool) -> None:
        """
        Listen on a Twisted endpoint.

        @param is_public: clients connect there; the pages of a port for operators have no WebSocket.
        @raise StartError: the port is in use, or C{description} is invalid.
        """
        port = await self.open(self._reactor, description, factory)
        self.add(port)
        self._log_address(description, port, is_public=is_public)

    async def open(self, reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
        """
        Open a port.

        @raise StartError: as in L{listen}.
        """
        try:
            return await listen(reactor, description, factory)
        except (CannotListenError, OSError) as error:
            # OSError concerns a file that the endpoint names: the folder of a Unix socket, a key
            reason = one_line(getattr(error, "socketError", error))
            raise StartError(f"cannot listen on {description}: {reason}") from None
        except Exception as error:
            raise StartError(
                f"cannot listen on {description!r}, which should be a Twisted endpoint"
                f" such as tcp:3849:interface=127.0.0.1: {one_line(error)}"
            ) from None

    def add(self, port: IListeningPort) -> None:
        """
        From now on C{port} is one of these.
        """
        bound_unsent(port)
        self.ports.append(port)
        address = port.getHost()
        if self.number is None and isinstance(address, IPv4Address | IPv6Address):
            self.number = int(address.port)
            self.address = f"{_in_url(address.host)}:{address.port}"

    async def close(self) -> None:
        """
        Stop listening.
        """
        for port in self.ports:
            await maybeDeferred(port.stopListening)

    def _log_address(self, description: str, port: IListeningPort, *, is_public: bool) -> None:
        address = port.getHost()
        if not isinstance(address, IPv4Address | IPv6Address):
            _log.info("listening on {endpoint}", endpoint=description)
            if is_open_to_all(port):
                _log.warn(
                    "every account of this machine may connect to {endpoint}: use mode=660 and a group",
                    endpoint=description,
                )
            return
        host = _in_url(address.host)
        s = "s" if description.startswith("ssl:") else ""
        _log.info(
            "listening on ws{s}://{host}:{port}/ (health: http{s}://{host}:{port}/health)",
            s=s,
            host=host,
            port=address.port,
        )
        # a browser does not speak the PROXY protocol
        if is_public and not description.startswith(PROXIED):
            reached = _in_url(_LOOPBACK.get(address.host, address.host))
            _log.info("live page: http{s}://{host}:{port}/live", s=s, host=reached, port=address.port)
        if not self._production and not ip_address(address.host).is_loopback:
            _log.warn(
                "development mode on {host}:{port}: everyone who can reach it may read and publish everything;"
                " set DCM_ENV=production, or HOST=127.0.0.1",
                host=host,
                port=address.port,
            )
