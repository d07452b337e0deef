"""
JSON Web Tokens.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from dcm_ws.protocol import web_tokens
from dcm_ws.protocol.commands import TOKEN_MAX
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import SKEW_MS, Claims, sign
from dcm_ws.protocol.web_tokens import (
    KEY_ALGORITHMS,
    MAX_KEYS,
    Audience,
    KeySet,
    is_web_token,
    read_header,
    read_keys,
    verify_web_token,
)
from tests.protocol.web_tokens import key_set, private_key, public_jwk, sign_web_token

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_706_000_000_000
THEN = NOW // 1000 + 3600


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def hs256(claims: Any, header: Any = None, secret: str = SECRET) -> str:
    """
    A token made by hand, with a signature that is good whatever else is wrong.
    """
    text = f"{part({'alg': 'HS256'} if header is None else header)}.{part(claims)}"
    return f"{text}.{part(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())}"


def verify(token: str, keys: KeySet | None = None, now_ms: int = NOW, **audience: Any) -> Claims:
    header = read_header(token)
    found = (SECRET,) if header.alg == "HS256" else (keys or KeySet()).find(header)
    return verify_web_token(token, header, found, now_ms, Audience(**audience))


def refusal(token: str, *args: Any, **more: Any) -> tuple[ErrorCode, str]:
    with pytest.raises(ProtocolError) as refused:
        verify(token, *args, **more)
    return refused.value.code, refused.value.reason


GOOD = {"sub": "ann", "exp": THEN}


@pytest.mark.parametrize(("session_id", "scope"), [(None, None), ("s", ["subscribe:topics/*"]), ("s", [])])
def test_own_tokens(session_id: str | None, scope: list[str] | None) -> None:
    """
    A token that is made here says who it is for, when it was issued, and what it allows, if that is limited.
    """
    token = web_tokens.sign_web_token(SECRET, "ann", session_id, NOW, 60_000, scope)
    claims = verify(token)
    assert (claims.agent_id, claims.session_id) == ("ann", session_id)
    assert claims.expires_at == NOW + 60_000 + SKEW_MS
    assert (None if claims.scope is None else list(claims.scope.texts)) == scope
    assert refusal(token, now_ms=NOW + 60_001 + SKEW_MS)[0] is ErrorCode.TOKEN_EXPIRED


def test_secret() -> None:
    """
    A token that is signed with a secret of the service, also a short one of development.
    """
    token = sign_web_token(SECRET, "HS256", THEN, sid="s")
    assert is_web_token(token) and not is_web_token(sign(SECRET, "ann", None, NOW))
    assert verify(token) == Claims("ann", "s", THEN * 1000 + SKEW_MS)
    header = read_header(token)
    assert verify_web_token(token, header, ("another", SECRET), NOW).agent_id == "ann"
    short = hs256(GOOD, secret="short")
    assert verify_web_token(short, read_header(short), ("short",), NOW).agent_id == "ann"
    assert refusal(hs256(GOOD, secret="another")) == (ErrorCode.TOKEN_INVALID, "Invalid token")


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
def test_keys(algorithm: str) -> None:
    """
    A token that is signed with a key of an identity provider, which it may name.
    """
    keys = read_keys(key_set(*(public_jwk(one, name) for one in KEY_ALGORITHMS for name in ("a", "b"))))
    assert len(keys) == 6
    for name in ("a", "b"):
        key = private_key(algorithm, name)
        assert verify(sign_web_token(key, algorithm, THEN, header={"kid": name}), keys).agent_id == "ann"
        assert verify(sign_web_token(key, algorithm, THEN), keys).agent_id == "ann"
        for wrong in ("c", "a" if name == "b" else "b"):
            refused = refusal(sign_web_token(key, algorithm, THEN, header={"kid": wrong}), keys)
            assert refused == (ErrorCode.TOKEN_INVALID, "Invalid token")
    assert refusal(sign_web_token(private_key(algorithm, "c"), algorithm, THEN), keys)[0] is ErrorCode.TOKEN_INVALID


@pytest.mark.parametrize("algorithm", ["none", "None", "", "HS384", "HS512", "RS384", "PS256", "ES384", "hs256"])
def test_other_algorithms(algorithm: str) -> None:
    """
    Other algorithms are refused, and C{none} before all.
    """
    for token in (hs256(GOOD, {"alg": algorithm}), f"{part({'alg': algorithm})}.{part(GOOD)}."):
        code, reason = refusal(token)
        assert code is ErrorCode.TOKEN_INVALID and "use HS256" in reason


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
def test_confused_algorithms(algorithm: str) -> None:
    """
    A public key is no secret, whatever form it is in; and a key is good for its own algorithm only.
    """
    jwk, public = public_jwk(algorithm, "a"), private_key(algorithm, "a").public_key()
    keys = read_keys(key_set(jwk))
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk).encode(),
        b"",
    ):
        for alg in ("HS256", algorithm):
            text = f"{part({'alg': alg, 'kid': 'a'})}.{part(GOOD)}"
            token = f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"
            assert refusal(token, keys) == (ErrorCode.TOKEN_INVALID, "Invalid token")
    good = sign_web_token(private_key(algorithm, "a"), algorithm, THEN, header={"kid": "a"})
    for other in KEY_ALGORITHMS:
        if other != algorithm:
            _, payload, signature = good.split(".")
            forged = f"{part({'alg': other, 'kid': 'a'})}.{payload}.{signature}"
            assert refusal(forged, keys) == (ErrorCode.TOKEN_INVALID, "Invalid token")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": NOW // 1000 + 1}, None),
        ({"exp": NOW / 1000 + 0.5}, None),
        ({"exp": NOW // 1000 - 30}, None),
        ({"exp": NOW // 1000 - 31}, ErrorCode.TOKEN_EXPIRED),
        ({"exp": 0}, ErrorCode.TOKEN_EXPIRED),
        *(({"exp": bad}, ErrorCode.TOKEN_INVALID) for bad in (None, "1706000000", -1, 1e300, True, [1])),
        ({"nbf": NOW // 1000 + 30}, None),
        ({"nbf": NOW // 1000 + 31}, ErrorCode.TOKEN_INVALID),
        ({"nbf": "soon"}, ErrorCode.TOKEN_INVALID),
        ({"nbf": None}, None),
        ({"iat": NOW // 1000 + 1000}, None),
        *(({"sub": bad}, ErrorCode.TOKEN_INVALID) for bad in (None, "", 1, " a", "a\n", "x" * 129)),
        *(({"sid": bad}, ErrorCode.TOKEN_INVALID) for bad in (1, " a", "x" * 129)),
        ({"sid": None}, None),
        ({"sid": ""}, None),
        ({"scope": "publish:x"}, ErrorCode.TOKEN_INVALID),
        ({"scope": 1}, ErrorCode.TOKEN_INVALID),
        ({"scope": [1]}, ErrorCode.TOKEN_INVALID),
    ],
    ids=str,
)
def test_claims(claims: dict[str, Any], code: ErrorCode | None) -> None:
    """
    C{sub} and C{exp} are required; clocks may differ by 30 s.
    """
    token = hs256(GOOD | claims)
    if code is None:
        assert verify(token).agent_id == "ann"
    else:
        assert refusal(token)[0] is code


def test_claims_that_are_missing() -> None:
    """
    Without C{sub} or C{exp}, a token is invalid.
    """
    for name in GOOD:
        assert "needs" in refusal(hs256({key: value for key, value in GOOD.items() if key != name}))[1]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (None, None),
        ("", ()),
        ([], ()),
        ("openid  profile operator", ("openid", "profile", "operator")),
        (["subscribe:topics/a b"], ("subscribe:topics/a b",)),
    ],
)
def test_scope(scope: Any, expected: tuple[str, ...] | None) -> None:
    """
    C{scope} is a list, or one text with blanks; an empty one allows nothing.
    """
    read = verify(hs256(GOOD | {"scope": scope})).scope
    assert (None if read is None else read.texts) == expected


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"aud": "dcm", "iss": "me"}, True),
        ({"aud": ["x", "ws"], "iss": "me"}, True),
        ({"aud": "x", "iss": "me"}, False),
        ({"aud": [], "iss": "me"}, False),
        ({"aud": {"dcm": 1}, "iss": "me"}, False),
        ({"iss": "me"}, False),
        ({"aud": "dcm", "iss": "you"}, False),
        ({"aud": "dcm"}, False),
    ],
)
def test_audience(claims: dict[str, Any], good: bool) -> None:
    """
    A token for others is refused if the operator has said whom tokens are for; otherwise that does not matter.
    """
    token = hs256(GOOD | claims)
    assert verify(token).agent_id == "ann"
    if good:
        assert verify(token, audiences=("dcm", "ws"), issuer="me").agent_id == "ann"
    else:
        assert refusal(token, audiences=("dcm", "ws"), issuer="me")[0] is ErrorCode.TOKEN_INVALID


HEADERS: tuple[Any, ...] = ({}, [], {"alg": 1}, {"alg": None}, b"\xff", b"[" * 3000, {"alg": ["HS256"]})
CLAIMS: tuple[Any, ...] = ([], 1, b"\xff", b"", b"{", b'{"sub":' + b"[" * 500)


@pytest.mark.parametrize(
    "token",
    [
        *("..", "a.b.c", "e30..", "=.=.=", "\u00e9.e30.e30"),
        *(hs256(GOOD, header) for header in HEADERS),
        hs256(GOOD, {"alg": "HS256", "kid": 1}),
        hs256(GOOD, {"alg": "HS256", "crit": ["exp"]}),
        hs256(GOOD, {"alg": "HS256", "crit": ["b64"], "b64": False}),
        *(hs256(claims) for claims in CLAIMS),
        hs256(GOOD) + "A",
        hs256(GOOD) + "\n",
        hs256(GOOD | {"x": "y" * TOKEN_MAX}),
    ],
    ids=lambda token: token[:30],
)
def test_malformed(token: str) -> None:
    """
    What is no token is refused.
    """
    assert refusal(token)[0] is ErrorCode.TOKEN_INVALID


@given(st.lists(st.text("eyJA0_-=é\n", max_size=30), min_size=3, max_size=3))
def test_anything(parts: list[str]) -> None:
    """
    Whatever comes, it is refused.
    """
    token = ".".join(parts)
    assert is_web_token(token)
    assert refusal(token)[0] is ErrorCode.TOKEN_INVALID


UNUSABLE = [
    *(b"", b"[]", b"{}", b"1", b'{"keys":{}}', b'{"keys":[]}', b"\xff", b"[" * 100_000),
    key_set({}),
    key_set({"kty": "oct", "k": "AAAA"}),
    key_set({"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}, {"kty": "OKP", "crv": "Ed25519"}, {"kty": "OKP"}),
    key_set({"kty": "RSA", "n": 1, "e": 1}, {"kty": "EC", "crv": "P-256", "x": [], "y": []}),
    key_set({"kty": "OKP", "crv": "Ed25519", "x": "!"}, {"kty": 1}, {"kty": "RSA", "n": "AQ", "e": "AQ"}),
    key_set(public_jwk("RS256", "weak", 1024)),
    key_set(public_jwk("RS256", alg="RS512"), public_jwk("ES256", alg="HS256"), public_jwk("EdDSA", use="enc")),
    key_set(
        public_jwk("ES256", key_ops=["sign"]),
        public_jwk("ES256", key_ops="verify"),
        public_jwk("ES256") | {"kid": 1},
    ),
    json.dumps({"keys": [public_jwk("EdDSA")] * (MAX_KEYS + 1)}).encode(),
    json.dumps({"keys": [1, None, []]}).encode(),
]


# keys are random, and so cannot be part of the names of tests
@pytest.mark.parametrize("text", UNUSABLE, ids=range(len(UNUSABLE)))
def test_key_sets_without_a_key(text: bytes) -> None:
    """
    A key set without a key that can verify tokens is invalid.
    """
    with pytest.raises(ValueError, match=r"^it "):
        read_keys(text)


def test_key_set_with_some_others() -> None:
    """
    Keys that cannot be used are left out, and nothing of a private key is kept.
    """
    private = json.loads(_private_jwk())
    keys = read_keys(
        key_set({"kty": "oct", "k": "AAAA"}, private, public_jwk("ES256", "b", key_ops=["verify"], use="sig"))
    )
    assert len(keys) == 2
    header = read_header(sign_web_token(private_key("RS256", "a"), "RS256", THEN, header={"kid": "a"}))
    (key,) = keys.find(header)
    assert not hasattr(key.key, "private_numbers")


def _private_jwk() -> str:

    return json.dumps(
        RSAAlgorithm.to_jwk(private_key("RS256", "a"), as_dict=True) | {"kid": "a", "key_ops": ["verify"]}
    )
