"""
Keys and JSON Web Tokens for tests.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

_MAKERS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def private_key(algorithm: str, name: str = "", bits: int = 2048) -> Any:
    """
    A private key, the same for each name.
    """
    return _private_key(algorithm, name, bits)


@cache
def _private_key(algorithm: str, name: str, bits: int) -> Any:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, bits)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public_jwk(algorithm: str, name: str = "", bits: int = 2048, **more: Any) -> dict[str, Any]:
    """
    The public key to it, as a JWK with C{name} as its C{kid}.
    """
    jwk = _MAKERS[algorithm].to_jwk(private_key(algorithm, name, bits).public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return jwk | {"kid": name} | more


def key_set(*jwks: dict[str, Any]) -> bytes:
    return json.dumps({"keys": jwks}).encode()


def sign_web_token(
    key: Any, algorithm: str, seconds: float, *, header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """
    A token that expires at a time in seconds since the epoch.
    """
    with warnings.catch_warnings():
        # some secrets of tests are short
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        return jwt.encode({"sub": "ann", "exp": seconds} | claims, key, algorithm, headers=header)
