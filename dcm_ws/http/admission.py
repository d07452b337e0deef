"""
Who may open a WebSocket or call over HTTP: checks the query and the headers (docs/protocol.md, sections 1, 5 and 12).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from dcm_ws.core.counts import LimitCounts
from dcm_ws.core.session import Origin
from dcm_ws.http.addresses import UNIX, TrustedProxies, limit_key
from dcm_ws.http.origins import AllowedOrigins, Target
from dcm_ws.http.request_headers import bearer_token
from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier
from dcm_ws.protocol.commands import TOKEN_MAX
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import Claims


class RefusedError(Exception):
    """
    The request is refused.

    @ivar code: for programs; the C{code} of the JSON body.
    """

    def __init__(self, status: HTTPStatus, code: str, reason: str) -> None:
        super().__init__(status, code, reason)
        self.status = status
        self.code = code
        self.reason = reason


class Visitor(NamedTuple):
    """
    Who a client says it is, and nothing of it verified.

    @ivar token: None without one.
    @ivar query: the parameters of the request.
    @ivar address: as in L{Admitted}.
    """

    token: str | None
    agent_id: str | None
    session_id: str | None
    query: Mapping[str, str]
    address: str

    @property
    def limit_key(self) -> str:
        """
        What the limits per address count it by; empty if it has no address.
        """
        return "" if self.address == UNIX else limit_key(self.address)


class Admitted(NamedTuple):
    """
    @ivar origin: who the client says it is.
    @ivar address: the client's own address, if a trusted proxy reports it; else that of the far end.
    """

    origin: Origin
    address: str


class Admission:
    """
    Admits or refuses requests.

    @param verify: returns the claims of a token, or raises L{ProtocolError}.
    @param writing: the pages that may call what changes something; the same as C{origins} if it is None.
    @param limits: where requests of pages are counted that may not connect.
    @param refused: called with the origin of each page that may not connect, and the target that it was compared with.
    """

    def __init__(
        self,
        verify: Callable[[str], Claims],
        *,
        origins: AllowedOrigins,
        writing: AllowedOrigins | None = None,
        proxies: TrustedProxies,
        limits: LimitCounts,
        refused: Callable[[str, Target], object] = lambda origin, target: None,
    ) -> None:
        self._verify = verify
        self._origins = origins
        self._writing = origins if writing is None else writing
        self._proxies = proxies
        self._refused = refused
        self._limits = limits

    def admit(self, target: str, headers: Mapping[str, str], peer: str, local_port: int | None = None) -> Admitted:
        """
        Read a handshake.

        @param target: the request's path and query.
        @param headers: by lower-case name.
        @param peer: the address of the far end.
        @param local_port: as in L{Target}.
        @raise RefusedError: something is malformed or not allowed, or the token is not valid.
        """
        self.check_origin(headers, peer, local_port)
        visitor = self.visitor(target, headers, peer)
        claims = None if visitor.token is None else self._claims(visitor.token)
        origin = Origin(visitor.agent_id, visitor.session_id, claims, _flag(visitor.query, "observer"))
        return Admitted(origin, visitor.address)

    def visitor(self, target: str, headers: Mapping[str, str], peer: str) -> Visitor:
        """
        Read who a client says it is.  The parameters are those of L{admit}.

        @raise RefusedError: something is malformed.
        """
        query = _query(target)
        for name in ("agent_id", "session_id"):
            if name in query and not is_identifier(query[name]):
                reason = f"Malformed {name}: use {IDENTIFIER_RULE}"
                raise RefusedError(HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_MESSAGE, reason)
        token = query.get("token") or bearer_token(headers.get("authorization", "")) or None
        if token is not None and len(token) > TOKEN_MAX:
            reason = f"Malformed token: use {TOKEN_MAX} characters at most"
            raise RefusedError(HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_MESSAGE, reason)
        address = self._proxies.client(peer, headers.get("x-forwarded-for", ""))
        return Visitor(token, query.get("agent_id"), query.get("session_id"), query, address)

    def check_origin(
        self, headers: Mapping[str, str], peer: str, local_port: int | None, *, writes: bool = False
    ) -> None:
        """
        Check that a request is not that of a page that may not connect.  The parameters are those of L{admit}.

        @param writes: the request changes something.
        @raise RefusedError: it is.
        """
        origin = headers.get("origin")
        if origin is None:
            return
        target = Target(headers.get("host", ""), local_port=local_port)
        if self._proxies.trusts(peer):
            host, scheme = (_nearest(headers.get(f"x-forwarded-{name}", "")) for name in ("host", "proto"))
            # pages cannot send these headers, so a name in them was not chosen by a page
            target = Target(host, scheme) if host else target._replace(scheme=scheme)
        if not (self._writing if writes else self._origins).allows(origin, target):
            self._limits.allowed_origin.add()
            self._refused(origin, target)
            raise RefusedError(HTTPStatus.FORBIDDEN, "ORIGIN_NOT_ALLOWED", "Pages of this origin may not connect")

    def _claims(self, token: str) -> Claims:
        try:
            return self._verify(token)
        except ProtocolError as error:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, error.code, error.reason) from None


def _query(target: str) -> dict[str, str]:
    """
    The parameters of a request; of several with one name, the first that is not empty.

    @param target: path and query; UTF-8 in it has been decoded as ISO 8859-1.
    """
    if "?" not in target:
        return {}
    # bytes that are not UTF-8 become lone surrogates, which are invalid in every id
    text = urlsplit(target).query.encode("iso-8859-1", "replace").decode("utf-8", "surrogateescape")
    query: dict[str, str] = {}
    for name, value in parse_qsl(text, errors="surrogateescape"):
        query.setdefault(name, value)
    return query


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "")
    if value not in ("", "1", "true"):
        reason = f"Malformed {name}: use 1, or leave it out"
        raise RefusedError(HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_MESSAGE, reason)
    return bool(value)


def _nearest(header: str) -> str:
    """
    The value that the nearest of several proxies has added.
    """
    return header.rpartition(",")[2].strip()
