"""
Twisted's endpoints, but only the owner and the group may connect to a Unix socket.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from dcm_ws.http.transport import ProxiedFactory

UNIX_MODE = "660"
"""
Permissions of a Unix socket whose endpoint does not say: Twisted's own default lets every account connect.
"""

PROXIED = "haproxy:"
"""
How an endpoint begins whose connections come through a proxy that uses the PROXY protocol.
"""

_unix = re.compile(rf"(?:{PROXIED})?unix:")
# a colon that belongs to a value is escaped
_mode = re.compile(r"(?<!\\):mode=")


def listen(reactor: Any, description: str, factory: IProtocolFactory) -> Deferred[IListeningPort]:
    """
    Listen on a Twisted endpoint; a Unix socket has L{UNIX_MODE} if the endpoint says nothing else.

    @raise ValueError: there is no such endpoint; other errors that its plugin raises come here, too.
    """
    description, factory = _without_proxy(with_mode(description), factory)
    port: Deferred[IListeningPort] = serverFromString(reactor, description).listen(factory)
    return port


def take_over(
    description: str, factory: IProtocolFactory, adopt: Callable[[IProtocolFactory], IListeningPort]
) -> IListeningPort:
    """
    Listen on a socket that is open already, as on an endpoint.

    @param adopt: listens on the socket.
    """
    return adopt(_without_proxy(description, factory)[1])


def _without_proxy(description: str, factory: IProtocolFactory) -> tuple[str, IProtocolFactory]:
    if description.startswith(PROXIED):
        return description.removeprefix(PROXIED), ProxiedFactory(factory)
    return description, factory


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
