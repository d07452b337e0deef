"""
What becomes of the extensions that a handshake offers.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.websocket.extensions import acceptable, settle_offers

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket"


@pytest.mark.parametrize(
    ("header", "offers"),
    [
        ("permessage-deflate", ["permessage-deflate"]),
        ("PerMessage-Deflate; Client_Max_Window_Bits", ["permessage-deflate; client_max_window_bits"]),
        ("permessage-deflate; client_max_window_bits=8", ["permessage-deflate; client_max_window_bits"]),
        ('permessage-deflate; client_max_window_bits="10"', ["permessage-deflate; client_max_window_bits"]),
        ("permessage-deflate; server_max_window_bits=9", ["permessage-deflate; server_max_window_bits=9"]),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
            ["permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"],
        ),
        (
            "permessage-deflate; server_max_window_bits=8, x-other, permessage-deflate; server_max_window_bits=12",
            ["permessage-deflate; server_max_window_bits=12"],
        ),
        ("permessage-deflate, permessage-deflate", ["permessage-deflate", "permessage-deflate"]),
        (",permessage-deflate,", ["permessage-deflate"]),
        # legal, and beyond us
        ("permessage-deflate; server_max_window_bits=8", []),
        # offers that a server must decline (RFC 7692, section 7.1)
        ("permessage-deflate; server_max_window_bits", []),
        ("permessage-deflate; server_max_window_bits=7", []),
        ("permessage-deflate; server_max_window_bits=16", []),
        ("permessage-deflate; server_max_window_bits=09", []),
        ("permessage-deflate; client_max_window_bits=0", []),
        ("permessage-deflate; client_max_window_bits=x", []),
        ("permessage-deflate; client_no_context_takeover=1", []),
        ("permessage-deflate; server_no_context_takeover=true", []),
        ("permessage-deflate; unknown", []),
        ("permessage-deflate; unknown=1; client_max_window_bits", []),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=10", []),
        ("permessage-deflate; server_no_context_takeover; Server_No_Context_Takeover", []),
        # other extensions
        ("x-webkit-deflate-frame", []),
        ("permessage-bzip2; client_max_compress_level", []),
        ("permessage-deflate2", []),
        # not the grammar of RFC 6455, section 9.1
        ("", []),
        (" ", []),
        (",,,", []),
        (";;;", []),
        ("permessage-deflate;", []),
        ("permessage-deflate; =1", []),
        ('permessage-deflate; client_max_window_bits="10', []),
        ('permessage-deflate; a="x y"', []),
        ("permessage deflate", []),
        ("permessage-deflate; server_max_window_bits=9=9", []),
        ("\xff", []),
        ("permessage-deflate, \x85", []),
    ],
)
def test_offers(header: str, offers: list[str]) -> None:
    """
    An offer is taken as it is, or declined; a malformed header has no offers.
    """
    assert acceptable(header) == offers


@given(st.text(st.sampled_from('permsag-dfltcixwobv_=;," \t8901\xff\\'), max_size=60))
def test_any_header_is_read(header: str) -> None:
    """
    Nothing that stands there is an error.
    """
    assert all(offer.startswith("permessage-deflate") for offer in acceptable(header))
    assert all(offer.startswith("permessage-deflate") for offer in acceptable(f"permessage-deflate{header}"))


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (b"", b""),
        (b"\r\nSec-WebSocket-Extensions: permessage-deflate", b"permessage-deflate"),
        (b"\r\nsec-websocket-extensions:permessage-deflate", b"permessage-deflate"),
        (b"\r\nSec-WebSocket-Extensions: x-a\r\nSec-WebSocket-Extensions: permessage-deflate", b"permessage-deflate"),
        (
            b"\r\nSec-WebSocket-Extensions: permessage-deflate;\r\n server_max_window_bits=10",
            b"permessage-deflate; server_max_window_bits=10",
        ),
        (b"\r\nSec-WebSocket-Extensions: x-a", b""),
        (b"\r\nSec-WebSocket-Extensions:", b""),
        (b"\nSec-WebSocket-Extensions: x;;", b""),
    ],
)
@pytest.mark.parametrize("compression", [False, True])
def test_head_has_what_can_be_taken(lines: bytes, line: bytes, compression: bool) -> None:
    """
    However many lines made the offers, one header is left with those that can be taken, or none.
    """
    head = settle_offers(HEAD + lines + b"\r\nX-Y: z", compression)

    expected = b"\r\nSec-WebSocket-Extensions: " + line if line and compression else b""
    assert head == HEAD.replace(b" HTTP/1.1", b" HTTP/1.1" + expected) + b"\r\nX-Y: z"
