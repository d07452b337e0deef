"""
What NATS servers send, whole, in pieces, and broken.
"""

from __future__ import annotations

from typing import Any

import pytest

from dcm_ws.nats.reading import Message, NatsProtocolError, Reading


class Reader:
    """
    Records what was read.
    """

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.reading = Reading(
            message=self.got.append,
            info=self.got.append,
            ping=lambda: self.got.append("ping"),
            pong=lambda: self.got.append("pong"),
            error=lambda text: self.got.append(f"error {text}"),
        )


STREAM = (
    b'INFO {"max_payload": 5, "nonce": "n"}\r\n'
    b"+OK\r\n"
    b"PING\r\n"
    b"MSG a.b 1 0\r\n\r\n"
    b"MSG a.b 12 back 5\r\nx\r\nyz\r\n"
    b"PONG\r\n"
    b"HMSG c 3 12 15\r\nNATS/1.0\r\n\r\nabc\r\n"
    b"HMSG c 3 back.1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"-ERR 'Stale Connection'\r\n"
    b"msg_is_no_word_of_it".replace(b"msg_is_no_word_of_it", b"ping")
    + b"\r\n"
)
READ = [
    {"max_payload": 5, "nonce": "n"},
    "ping",
    Message(b"a.b", b"1", b"", b"", b""),
    Message(b"a.b", b"12", b"back", b"", b"x\r\nyz"),
    "pong",
    Message(b"c", b"3", b"", b"NATS/1.0\r\n\r\n", b"abc"),
    Message(b"c", b"3", b"back.1", b"NATS/1.0 503\r\n\r\n", b""),
    "error Stale Connection",
    "ping",
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(STREAM)])
def test_pieces_of_any_size(size: int) -> None:
    """
    It does not matter how the bytes are cut.
    """
    reader = Reader()
    for start in range(0, len(STREAM), size):
        reader.reading.feed(STREAM[start : start + size])
    assert reader.got == READ


def test_large_message_in_many_pieces() -> None:
    """
    A message of a mebibyte that comes in small pieces is whole, and so is what follows.
    """
    payload = bytes(range(256)) * 4096
    stream = b"MSG a 1 %d\r\n%b\r\nPING\r\n" % (len(payload), payload)
    reader = Reader()
    for start in range(0, len(stream), 1460):
        reader.reading.feed(stream[start : start + 1460])
    assert reader.got == [Message(b"a", b"1", b"", b"", payload), "ping"]


def test_stops() -> None:
    """
    After it was stopped in the middle of what came, the rest is ignored.
    """
    reader = Reader()
    reading = Reading(
        message=reader.got.append,
        info=reader.got.append,
        ping=lambda: setattr(reading, "stopped", True),
        pong=lambda: reader.got.append("pong"),
        error=reader.got.append,
    )
    reading.feed(b"PING\r\nPONG\r\nPO")
    reading.feed(b"NG\r\n")
    assert reader.got == []


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"INFO []\r\n",
        b"INFO {\r\n",
        b"INFO " + b"[" * 100_000 + b"\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 2 3 4\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 99999999999\r\n",
        b"MSG a 1 2\r\nabcd\r\n",
        b"HMSG a 1 5\r\n",
        b"HMSG a 1 9 5\r\n",
        b"MESSAGE a 1 5\r\n",
        b"x" * (2 << 20),
    ],
)
def test_wrong(wrong: bytes) -> None:
    """
    What is not of the protocol is an error, and never any other exception.
    """
    with pytest.raises(NatsProtocolError):
        Reader().reading.feed(wrong)
