"""
Tokens: C{base64url(payload).signature}, signed with HMAC-SHA256 (protocol, section 5).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from dcm_ws.protocol.commands import TOKEN_MAX, check_identifiers
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.scopes import Scope, read_scope, scopes_of

TTL_MS = 3_600_000
"""
How long a token is valid: one hour, in ms.
"""

SKEW_MS = 30_000
"""
How far the clocks of an issuer and of the service may be apart, in ms.
"""

_token = re.compile(r"([A-Za-z0-9_-]+)\.([0-9a-f]{64})")


# JavaScript cannot represent later times than this
_LAST_MS = 8_640_000_000_000_000
_Milliseconds = Annotated[int, Meta(ge=0, le=_LAST_MS)] | Annotated[float, Meta(ge=0, le=_LAST_MS)]


class _Payload(Struct, frozen=True, omit_defaults=True):
    agent_id: str
    issued_at: _Milliseconds
    expires_at: _Milliseconds
    session_id: str | None = None
    scope: Any = None

    def __post_init__(self) -> None:
        check_identifiers(self, "agent_id", "session_id")
        if not self.agent_id:
            raise ValueError("`agent_id` is empty")


class Claims(NamedTuple):
    """
    What a valid token claims.

    @ivar expires_at: ms since the epoch; 0 if there is no token.
    @ivar scope: what the token is limited to; None for the rights of an agent.
    @ivar issued_at: ms since the epoch; 0 if the token does not say.
    """

    agent_id: str
    session_id: str | None
    expires_at: int
    scope: Scope | None = None
    issued_at: int = 0

    @property
    def by_token(self) -> bool:
        """
        True if a token claims this; false for a client that only says so.
        """
        return self.expires_at != 0


_payload = msgspec.json.Decoder(_Payload)


def sign(
    secret: str,
    agent_id: str,
    session_id: str | None,
    now_ms: int,
    ttl_ms: int = TTL_MS,
    scope: Sequence[str] | None = None,
) -> str:
    """
    Return a token that is valid for C{ttl_ms} from C{now_ms}.

    @param scope: what the token is limited to; None for the rights of an agent.
    @raise ValueError: an id does not fit its grammar.
    """
    scopes = None if scope is None else list(scope)
    payload = msgspec.json.encode(_Payload(agent_id, now_ms, now_ms + ttl_ms, session_id, scopes))
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode() + "." + _signature(secret, payload)


def verify(secret: str, token: str, now_ms: int) -> Claims:
    """
    Verify a token as L{verify_any} does, with one secret.
    """
    return verify_any((secret,), token, now_ms)


def verify_any(secrets: Iterable[str], token: str, now_ms: int) -> Claims:
    """
    Verify the signature and the expiry of a token, and read its scope; return its claims.

    @param secrets: what may have signed it.
    @raise ProtocolError: C{TOKEN_INVALID} or C{TOKEN_EXPIRED}.
    """
    parts = _token.fullmatch(token) if len(token) <= TOKEN_MAX else None
    if parts is None:
        raise _invalid()
    encoded, signature = parts.groups()
    try:
        payload = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        raise _invalid() from None
    if not any(hmac.compare_digest(_signature(secret, payload), signature) for secret in secrets):
        raise _invalid()
    try:
        claims = _payload.decode(payload.decode())
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _invalid() from None
    # A token is valid until the end of its last millisecond.
    if now_ms > claims.expires_at:
        raise ProtocolError(ErrorCode.TOKEN_EXPIRED, "Token expired; get a new one")
    scope = None if claims.scope in (None, "") else read_scope(scopes_of(claims.scope))
    return Claims(
        claims.agent_id, claims.session_id, int(claims.expires_at), scope, issued_ms(claims.issued_at, now_ms)
    )


def issued_ms(given: float, now_ms: int) -> int:
    """
    When a token was issued, in ms since the epoch; 0 if it says a time to come.  Otherwise it could not be revoked.
    """
    return int(given) if given <= now_ms + SKEW_MS else 0


def _signature(secret: str, payload: bytes) -> str:
    return hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()


def _invalid() -> ProtocolError:
    return ProtocolError(ErrorCode.TOKEN_INVALID, "Invalid token")
