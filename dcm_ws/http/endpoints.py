"""
What Twisted's endpoints leave to be desired: Unix sockets that only their owner and group may connect to, and heads of
the PROXY protocol that break nothing.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory

UNIX_MODE = "660"
"""
Permissions of a Unix socket whose endpoint does not say: Twisted's own default lets every account connect.
"""

_PROXIED = "haproxy:"
_unix = re.compile(rf"(?:{_PROXIED})?unix:")
# a colon that belongs to a value is escaped
_mode = re.compile(r"(?<!\\):mode=")


class ProxiedConnection(HAProxyProtocolWrapper):
    """
    A connection of a proxy that says in its first line, or its first bytes, for whom it is made (PROXY protocol).
    """

    def dataReceived(self, data: bytes) -> None:
        if self._parser is None and data.startswith(b"PROXY UNKNOWN\r\n"):
            # legal without addresses (section 2.1), but not for Twisted
            data = data.replace(b"\r\n", b" \r\n", 1)
        try:
            super().dataReceived(data)
        except ValueError:
            # Twisted checks neither ports nor the bytes of addresses
            if self._proxyInfo is not None:
                raise
            self.loseConnection()


class _ProxiedFactory(HAProxyWrappingFactory):
    protocol = ProxiedConnection  # type: ignore[assignment]
    noisy = False


def listen(reactor: Any, description: str, factory: IProtocolFactory) -> Deferred[IListeningPort]:
    """
    Listen on a Twisted endpoint; a Unix socket has L{UNIX_MODE} if the endpoint says nothing else.

    @raise ValueError: there is no such endpoint; other errors that its plugin raises come here, too.
    """
    description = with_mode(description)
    if description.startswith(_PROXIED):
        description, factory = description.removeprefix(_PROXIED), _ProxiedFactory(factory)
    port: Deferred[IListeningPort] = serverFromString(reactor, description).listen(factory)
    return port


def with_mode(description: str) -> str:
    """
    An endpoint string, with L{UNIX_MODE} if it is a Unix socket's and has no mode.
    """
    if _unix.match(description) and not _mode.search(description):
        return f"{description}:mode={UNIX_MODE}"
    return description


def is_open_to_all(port: IListeningPort) -> bool:
    """
    True for a Unix socket that every account of the machine may connect to.
    """
    address = port.getHost()
    if not isinstance(address, UNIXAddress) or address.name is None:
        return False
    try:
        return bool(os.stat(address.name).st_mode & stat.S_IWOTH)
    except OSError:
        # abstract, or removed already
        return False
