"""
JSON Web Tokens (RFC 7519): signed with a secret of the service, or with a key of an identity provider (protocol,
section 11).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from jwt import PyJWK, PyJWS, PyJWTError
from jwt.algorithms import HMACAlgorithm
from msgspec import Meta, Struct

from dcm_ws.protocol.channels import is_identifier
from dcm_ws.protocol.commands import TOKEN_MAX
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.scopes import Scope, read_scope, scopes_of
from dcm_ws.protocol.tokens import SKEW_MS, Claims, issued_ms, verify_any

SECRET_ALGORITHM = "HS256"
"""
The algorithm of tokens that are signed with a secret.
"""

KEY_ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""
Those of tokens that are signed with a private key.
"""

MAX_KEYS = 100
"""
Keys of one key set.
"""

_RSA_BITS = range(2048, 8193)
_TRIED_MAX = 8
_LAST_SECOND = 8_640_000_000_000
_Seconds = Annotated[int, Meta(ge=0, le=_LAST_SECOND)] | Annotated[float, Meta(ge=0, le=_LAST_SECOND)]


class Header(Struct, frozen=True):
    """
    The header of a token.

    @ivar alg: the algorithm of its signature.
    @ivar kid: names the key.
    """

    alg: str
    kid: str | None = None


class _Payload(Struct, frozen=True):
    sub: str
    exp: _Seconds
    nbf: _Seconds | None = None
    iat: _Seconds | None = None
    sid: str | None = None
    scope: Any = None
    aud: Any = None
    iss: Any = None


class Audience(NamedTuple):
    """
    What a token has to be for.

    @ivar audiences: one of these has to be its C{aud}; none if that does not matter.
    @ivar issuer: its C{iss}; empty if that does not matter.
    """

    audiences: tuple[str, ...] = ()
    issuer: str = ""


ANY_AUDIENCE = Audience()
"""
It does not matter whom a token is for.
"""


class _Secret(HMACAlgorithm):
    def check_key_length(self, key: bytes) -> str | None:
        # production demands secrets that are long enough, and development may have a short one
        return None


_header = msgspec.json.Decoder(Header)
_payload = msgspec.json.Decoder(_Payload)
_jws = PyJWS(algorithms=KEY_ALGORITHMS)
_jws.register_algorithm(SECRET_ALGORITHM, _Secret(HMACAlgorithm.SHA256))


class TooManyKeysError(ValueError):
    """
    A key set has more than L{MAX_KEYS} keys.
    """


class KeySet:
    """
    The public keys of an identity provider (RFC 7517).
    """

    def __init__(self, keys: Iterable[PyJWK] = ()) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, header: Header) -> Sequence[PyJWK]:
        """
        The keys that may have signed a token.  A token that does not name its key is tried with a few of them.
        """
        fitting = [key for key in self._keys if key.algorithm_name == header.alg]
        if header.kid is not None:
            return [key for key in fitting if key.key_id == header.kid]
        return fitting[:_TRIED_MAX]


def read_keys(text: bytes) -> KeySet:
    """
    Read a JWK set.  Keys that cannot verify tokens are left out: those of other kinds and for other purposes, and RSA
    keys of fewer than 2048 bits.

    @raise ValueError: it is none, has too many keys, or none that can be used.
    """
    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("it is not JSON") from None
    keys = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(keys, list):
        raise ValueError("it is not a JWK set: an object with a list of `keys`")
    if len(keys) > MAX_KEYS:
        raise TooManyKeysError(f"it has more than {MAX_KEYS} keys")
    usable = [key for given in keys if (key := _read_key(given)) is not None]
    if not usable:
        raise ValueError(f"it has no key for {', '.join(KEY_ALGORITHMS)}")
    return KeySet(usable)


def _read_key(given: object) -> PyJWK | None:
    if not isinstance(given, dict) or given.get("use", "sig") != "sig":
        return None
    operations = given.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    kid = given.get("kid")
    if kid is not None and not isinstance(kid, str):
        return None
    # nothing of a private key is kept, should it be there
    public = {name: given[name] for name in ("kty", "crv", "x", "y", "n", "e", "alg", "kid") if name in given}
    try:
        key = PyJWK(public)
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if key.algorithm_name not in KEY_ALGORITHMS:
        return None
    if key.algorithm_name == "RS256" and key.key.key_size not in _RSA_BITS:
        return None
    return key


def is_web_token(token: str) -> bool:
    """
    Is C{token} a JSON Web Token?  It has three parts; tokens of the other format have two.
    """
    return token.count(".") == 2


def read_header(token: str) -> Header:
    """
    Read the header of a JSON Web Token, of which nothing has been verified.

    @raise ProtocolError: C{TOKEN_INVALID}.
    """
    encoded = token.partition(".")[0]
    if len(token) > TOKEN_MAX:
        raise _invalid()
    try:
        header = _header.decode(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _invalid() from None
    if header.alg != SECRET_ALGORITHM and header.alg not in KEY_ALGORITHMS:
        raise _invalid(f"use {SECRET_ALGORITHM}, {', '.join(KEY_ALGORITHMS)}")
    return header


def sign_web_token(
    secret: str, agent_id: str, session_id: str | None, now_ms: int, ttl_ms: int, scope: Sequence[str] | None = None
) -> str:
    """
    Return a JSON Web Token that is signed with a secret; the parameters are those of L{dcm_ws.protocol.tokens.sign}.
    """
    claims: dict[str, object] = {"sub": agent_id, "iat": now_ms // 1000, "exp": (now_ms + ttl_ms) // 1000}
    if session_id is not None:
        claims["sid"] = session_id
    if scope is not None:
        claims["scope"] = list(scope)
    return _jws.encode(msgspec.json.encode(claims), secret, SECRET_ALGORITHM)


def verify_any_token(
    token: str, secrets: Iterable[str], keys: KeySet, now_ms: int, audience: Audience = ANY_AUDIENCE
) -> Claims:
    """
    Verify a token of either format.

    @param secrets: and C{keys}: what may have signed it.  An algorithm is never verified with the other kind of key.
    @raise ProtocolError: C{TOKEN_INVALID} or C{TOKEN_EXPIRED}.
    """
    if not is_web_token(token):
        return verify_any(secrets, token, now_ms)
    header = read_header(token)
    found: Iterable[str | PyJWK] = secrets if header.alg == SECRET_ALGORITHM else keys.find(header)
    return verify_web_token(token, header, found, now_ms, audience)


def verify_web_token(
    token: str, header: Header, keys: Iterable[str | PyJWK], now_ms: int, audience: Audience = ANY_AUDIENCE
) -> Claims:
    """
    Verify the signature and the claims of a JSON Web Token.

    @param header: that of C{token}, as L{read_header} returns it.
    @param keys: secrets, or the keys that L{KeySet.find} returns: the kind that C{header} asks for.  A key verifies
        only the algorithm that it is for.
    @raise ProtocolError: C{TOKEN_INVALID} or C{TOKEN_EXPIRED}.
    """
    for key in keys:
        try:
            payload = _jws.decode(token, key, algorithms=[header.alg])
            break
        except (PyJWTError, ValueError):
            continue
    else:
        raise _invalid()
    try:
        claims = _payload.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _invalid("it needs `sub` and `exp`") from None
    for name in ("sub", "sid"):
        value = getattr(claims, name)
        if value and not is_identifier(value):
            raise _invalid(f"its {name} is not a name")
    if not claims.sub:
        raise _invalid("its sub is empty")
    expires_ms = int(claims.exp * 1000) + SKEW_MS
    if now_ms > expires_ms:
        raise ProtocolError(ErrorCode.TOKEN_EXPIRED, "Token expired; get a new one")
    if claims.nbf is not None and now_ms < claims.nbf * 1000 - SKEW_MS:
        raise _invalid("it is not valid yet")
    _check_audience(claims, audience)
    return Claims(
        claims.sub, claims.sid or None, expires_ms, _scope(claims.scope), issued_ms((claims.iat or 0) * 1000, now_ms)
    )


def _check_audience(claims: _Payload, audience: Audience) -> None:
    named = claims.aud if isinstance(claims.aud, list) else [claims.aud]
    if audience.audiences and not any(one in audience.audiences for one in named):
        raise _invalid("it is for another audience")
    if audience.issuer and claims.iss != audience.issuer:
        raise _invalid("it is of another issuer")


def _scope(given: object) -> Scope | None:
    if given is None:
        return None
    # RFC 8693, section 4.2: a list in one text; an empty one allows nothing
    return read_scope(tuple(given.split()) if isinstance(given, str) else scopes_of(given))


def _invalid(reason: str = "") -> ProtocolError:
    return ProtocolError(ErrorCode.TOKEN_INVALID, f"Invalid token: {reason}" if reason else "Invalid token")
