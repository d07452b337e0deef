"""
Where NATS servers are: their URLs, read and checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

PORT = 4222
"""
The port of a NATS server if its URL has none.
"""

_SCHEMES = ("nats", "tls")


class NatsUrlError(ValueError):
    """
    A URL does not lead to a NATS server; the text says why, without showing a password.
    """


@dataclass(frozen=True, slots=True)
class Server:
    """
    A NATS server.

    @ivar tls: the connection must be encrypted.
    @ivar user: and C{password}: of the URL; empty if it has none.
    @ivar token: of the URL; empty if it has none.
    @ivar name: the name that its certificate must be for; empty if that is C{host}.
    """

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    name: str = ""

    @property
    def shown(self) -> str:
        """
        Its address, for the log.
        """
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_urls(urls: Sequence[str]) -> list[Server]:
    """
    Read URLs such as C{nats://user:password@host:4222}, C{nats://token@host} and C{tls://host}.

    @param urls: each may be several, separated by commas.
    @raise NatsUrlError: one of them is invalid.
    """
    return [_read(url.strip()) for several in urls for url in several.split(",") if url.strip()]


def read_discovered(address: str, known: Sequence[Server]) -> Server | None:
    """
    Read an address of C{connect_urls}, which has no scheme.  The connection is encrypted if that of any known server
    is, and has the credentials of the first one that has any; nothing is sent in clear that was not before.

    Returns None if it cannot be read.
    """
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        return None
    if not host:
        return None
    tls = any(server.tls for server in known)
    like = next((server for server in known if server.user or server.token), known[0])
    # what servers say of themselves are mostly IP addresses, which their certificates need not have
    return Server(host, port, tls, like.user, like.password, like.token, known[0].name or known[0].host)


def _read(url: str) -> Server:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        raise NatsUrlError("a URL of NATS is invalid: write nats://host:port") from None
    if parts.scheme not in _SCHEMES:
        raise NatsUrlError(f"a URL of NATS begins with nats:// or tls://, not with {parts.scheme}://")
    if not host:
        raise NatsUrlError("a URL of NATS has no host: write nats://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise NatsUrlError(f"the URL of the NATS server {host} has something after the port")
    user, password, token = _credentials(parts)
    return Server(host, port, parts.scheme == "tls", user, password, token)


def _credentials(parts: SplitResult) -> tuple[str, str, str]:
    if parts.username is None:
        return "", "", ""
    if parts.password is None:
        return "", "", unquote(parts.username)
    return unquote(parts.username), unquote(parts.password), ""
