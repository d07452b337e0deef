"""
Unix sockets that only their owner and group may connect to.
"""

from __future__ import annotations

import os
import re
import stat

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IListeningPort

UNIX_MODE = "660"
"""
Permissions of a Unix socket whose endpoint does not say: Twisted's own default lets every account connect.
"""

_unix = re.compile(r"(?:haproxy:)?unix:")
# a colon that belongs to a value is escaped
_mode = re.compile(r"(?<!\\):mode=")


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
