"""
Keys of NATS, and the files that they are in.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dcm_ws.nats.nkeys import NatsKeyError, UserKey, read_creds, read_nkey
from tests.integration.nats_servers import Key, with_nkey, with_operator

# of the documentation of NATS
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_key_of_the_documentation() -> None:
    """
    A seed gives the public key that the documentation of NATS has for it.
    """
    assert UserKey(SEED).public == PUBLIC


def test_signature() -> None:
    """
    What is signed can be checked with the public key.
    """
    key = UserKey(SEED)
    public = base64.b32decode(key.public)
    signature = base64.urlsafe_b64decode(key.sign("nonce") + "==")
    Ed25519PublicKey.from_public_bytes(public[1:33]).verify(signature, b"nonce")


@pytest.mark.parametrize("wrong", ["", "SU", PUBLIC, SEED[:-1], SEED + "AA", SEED.lower(), "S1" + SEED[2:], "ü"])
def test_wrong_seeds(wrong: str) -> None:
    """
    What is not the seed of a user is refused, and not shown.
    """
    with pytest.raises(NatsKeyError) as raised:
        UserKey(wrong)
    assert not wrong or wrong not in str(raised.value) or wrong == "SU"


def test_typing_error() -> None:
    """
    A seed with a wrong letter is noticed.
    """
    with pytest.raises(NatsKeyError, match="typing error"):
        UserKey(SEED.replace("Q", "P"))


def test_seeds_of_others() -> None:
    """
    The seed of an account is not that of a user.
    """
    with pytest.raises(NatsKeyError, match="begins with SU"):
        UserKey(Key("account").seed)


def test_files(tmp_path: Path) -> None:
    """
    A key and a JWT are read from their files; files that have none are refused.
    """
    _, nkey = with_nkey(tmp_path)
    assert read_nkey(nkey).public.startswith("U")
    _, creds = with_operator(tmp_path)
    jwt, key = read_creds(creds)
    assert jwt.count(".") == 2
    assert key.public.startswith("U")
    with pytest.raises(NatsKeyError, match="no JWT"):
        read_creds(nkey)
    for content in (b"", b"# nothing\n", b"\xff\xfe"):
        (tmp_path / "wrong").write_bytes(content)
        with pytest.raises(NatsKeyError, match="wrong"):
            read_nkey(tmp_path / "wrong")
    with pytest.raises(OSError, match="nowhere"):
        read_creds(tmp_path / "nowhere")
