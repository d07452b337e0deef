"""
The keys with which a client proves to a NATS server who it is: nkeys (Ed25519), and files with a JWT and its key.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_SEED = 18 << 3  # S
_USER = 20 << 3  # U
_BLOCK = re.compile(r"-{3,}BEGIN ([A-Z0-9 ]+?)-{3,}\s*(\S+)\s*-{3,}END \1-{3,}")


class NatsKeyError(ValueError):
    """
    A key or a file with one is invalid; the text says why, without showing the key.
    """


class UserKey:
    """
    The key pair of a user.

    @param seed: as C{nk} and C{nsc} write it: C{SU} and 56 more characters.
    @raise NatsKeyError: it is not such a seed.

    @ivar public: the public key, as servers have it in their configuration: C{U} and 55 more characters.
    """

    def __init__(self, seed: str) -> None:
        try:
            raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
        except ValueError:
            raise NatsKeyError("the nkey is not the seed of a user, which begins with SU") from None
        # five bits say that it is a seed, and eight which kind of key it is of
        if len(raw) != 36 or raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
            raise NatsKeyError("the nkey is not the seed of a user, which begins with SU")
        if _checksum(raw[:-2]) != raw[-2:]:
            raise NatsKeyError("the nkey has a typing error: its checksum is wrong")
        self._key = Ed25519PrivateKey.from_private_bytes(raw[2:-2])
        public = bytes([_USER]) + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = base64.b32encode(public + _checksum(public)).decode().rstrip("=")

    def sign(self, nonce: str) -> str:
        """
        Sign what a server wants to have signed.
        """
        return base64.urlsafe_b64encode(self._key.sign(nonce.encode())).decode().rstrip("=")


def read_nkey(path: Path) -> UserKey:
    """
    Read a file with the seed of a user; lines that begin with C{#} are skipped.

    @raise NatsKeyError: there is none in it.
    @raise OSError: it cannot be read.
    """
    lines = [line.strip() for line in _text(path).splitlines()]
    seeds = [line for line in lines if line and not line.startswith(("#", "-"))]
    if not seeds:
        raise NatsKeyError(f"there is no nkey in {path}")
    return UserKey(seeds[0])


def read_creds(path: Path) -> tuple[str, UserKey]:
    """
    Read a file of C{nsc}: the JWT of a user, and the user's key.

    @raise NatsKeyError: they are not in it.
    @raise OSError: it cannot be read.
    """
    blocks = dict(_BLOCK.findall(_text(path)))
    if "NATS USER JWT" not in blocks or "USER NKEY SEED" not in blocks:
        raise NatsKeyError(f"{path} has no JWT and nkey of a NATS user")
    return blocks["NATS USER JWT"], UserKey(blocks["USER NKEY SEED"])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise NatsKeyError(f"{path} is not a text") from None


def _checksum(data: bytes) -> bytes:
    # CRC-16/XMODEM, as nkeys have it
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
