"""
Who may open a WebSocket: what a handshake's path and headers must say (protocol, sections 1 and 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from dcm_ws.addresses import TrustedProxies
from dcm_ws.channels import is_identifier
from dcm_ws.errors import ErrorCode, ProtocolError
from dcm_ws.messages import TOKEN_MAX
from dcm_ws.session import Origin
from dcm_ws.tokens import Claims

SAME_HOST = "same-host"
"""
Stands among the allowed origins for the host that the client itself connects to.
"""


class RefusedError(Exception):
    """
    The handshake is refused.

    @ivar code: for programs; the C{code} of the JSON body.
    """

    def __init__(self, status: HTTPStatus, code: str, reason: str) -> None:
        super().__init__(status, code, reason)
        self.status = status
        self.code = code
        self.reason = reason


class Admitted(NamedTuple):
    """
    @ivar origin: who the client says it is.
    @ivar address: where it is, looked at through the proxies that are trusted.
    """

    origin: Origin
    address: str


class AllowedOrigins:
    """
    The web pages that may connect.  Programs that are no browsers send no C{Origin}, and always may.

    @param patterns: origins such as C{https://*.example.com}, in which C{*} stands for anything; L{SAME_HOST}; or
        C{*} alone for all.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        # fnmatch has brackets of its own, and so have IPv6 addresses
        self._patterns = [pattern.lower().rstrip("/").replace("[", "[[]").replace("?", "[?]") for pattern in patterns]

    def allows(self, origin: str | None, host: str) -> bool:
        """
        @param origin: the C{Origin} header, if there is one.
        @param host: the C{Host} header.
        """
        if origin is None:
            return True
        origin = origin.strip().lower()
        for pattern in self._patterns:
            if pattern == SAME_HOST:
                _, slashes, place = origin.partition("://")
                if slashes and place == host.strip().lower():
                    return True
            elif pattern == "*" or fnmatchcase(origin, pattern):
                return True
        return False


class Admission:
    """
    @param verify: reads a token, or raises L{ProtocolError}.
    """

    def __init__(self, verify: Callable[[str], Claims], *, origins: AllowedOrigins, proxies: TrustedProxies) -> None:
        self._verify = verify
        self._origins = origins
        self._proxies = proxies
        self.origins_refused = 0

    def admit(self, target: str, headers: Mapping[str, str], peer: str) -> Admitted:
        """
        @param target: the request's path and query.
        @param headers: by lower-case name.
        @param peer: the address of the far end.
        @raise RefusedError: something is malformed or not allowed, or the token is no good.
        """
        if not self._origins.allows(headers.get("origin"), headers.get("host", "")):
            self.origins_refused += 1
            raise RefusedError(HTTPStatus.FORBIDDEN, "ORIGIN_NOT_ALLOWED", "Pages of this origin may not connect")
        query: dict[str, str] = {}
        for name, value in parse_qsl(urlsplit(target).query, keep_blank_values=True):
            query.setdefault(name, value)
        for name in ("agent_id", "session_id"):
            if name in query and not is_identifier(query[name]):
                raise RefusedError(
                    HTTPStatus.BAD_REQUEST,
                    ErrorCode.INVALID_MESSAGE,
                    f"Malformed {name}: use 1 to 128 of A-Z a-z 0-9 _ . : @ -",
                )
        claims = self._claims(query.get("token"), headers.get("authorization", ""))
        origin = Origin(query.get("agent_id"), query.get("session_id"), claims, _flag(query, "observer"))
        return Admitted(origin, self._proxies.client(peer, headers.get("x-forwarded-for", "")))

    def _claims(self, token: str | None, authorization: str) -> Claims | None:
        scheme, _, credentials = authorization.partition(" ")
        if token is None and scheme.lower() == "bearer":
            token = credentials.strip()
        if token is None:
            return None
        if not 0 < len(token) <= TOKEN_MAX:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST,
                ErrorCode.INVALID_MESSAGE,
                f"Malformed token: use 1 to {TOKEN_MAX} characters",
            )
        try:
            return self._verify(token)
        except ProtocolError as error:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, error.code, error.reason) from None


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "")
    if value not in ("", "1", "true"):
        reason = f"Malformed {name}: use 1, or leave it out"
        raise RefusedError(HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_MESSAGE, reason)
    return bool(value)
