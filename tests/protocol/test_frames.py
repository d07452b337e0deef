from __future__ import annotations

import random
import zlib

import pytest

from dcm_ws.protocol.frames import (
    PING_FRAME,
    RecentlyCompressed,
    binary_frame,
    compressed,
    pong_control_frame,
    text_frame,
)
from tests.fakes import split_frames


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8100"),
        (1, "8101"),
        (125, "817d"),
        (126, "817e007e"),
        (127, "817e007f"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
        (1_048_576, "817f0000000000100000"),
    ],
)
def test_length_is_written_the_shortest_way(size: int, header: str) -> None:
    """
    A text frame is final and unmasked, and has the shortest length that can say it (RFC 6455, section 5.2).
    """
    payload = b"x" * size

    assert text_frame(payload) == bytes.fromhex(header) + payload


def test_frames_follow_each_other() -> None:
    """
    Frames written one after the other are read as what they were.
    """
    payloads = [b"{}", b"y" * 126, b"z" * 70_000]

    stream = b"".join(map(text_frame, payloads)) + PING_FRAME

    assert list(split_frames(stream)) == [(1, payload) for payload in payloads] + [(9, b"")]


@pytest.mark.parametrize(
    ("size", "header"),
    [(0, "8200"), (125, "827d"), (126, "827e007e"), (65_535, "827effff"), (65_536, "827f0000000000010000")],
)
def test_binary_frames_have_the_same_lengths(size: int, header: str) -> None:
    """
    A binary frame differs in its opcode alone.
    """
    assert binary_frame(b"x" * size) == bytes.fromhex(header) + b"x" * size


def read_compressed(data: bytes) -> list[tuple[int, bytes]]:
    """
    The frames of a stream as a client reads them that negotiated C{permessage-deflate} (RFC 7692, section 7.2.2).
    """
    frames = []
    while data:
        first, size, start = data[0], data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start])
        payload, data = data[start : start + size], data[start + size :]
        if first & 0x40:
            payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff")
        frames.append((first, payload))
    return frames


@pytest.mark.parametrize("window_bits", range(9, 16))
@pytest.mark.parametrize("size", [128, 1000, 70_000])
def test_compressed_frames_are_read_as_what_they_were(window_bits: int, size: int) -> None:
    """
    Each message is compressed by itself, within the window that was negotiated; its opcode stays.
    """
    payload = (b'{"task":"%d"}' * (size // 10))[:size]
    stream = text_frame(payload) + binary_frame(payload) + text_frame(payload)

    smaller = compressed(stream, window_bits)
    assert len(smaller) < len(stream) / 2
    assert read_compressed(smaller) == [(0xC1, payload), (0xC2, payload), (0xC1, payload)]


def test_what_does_not_compress_is_read_all_the_same() -> None:
    """
    Random bytes become a little longer, and come out as they went in.
    """
    payload = random.Random(1).randbytes(65_530)

    assert read_compressed(compressed(binary_frame(payload), 15)) == [(0xC2, payload)]


def test_what_goes_to_many_is_compressed_once() -> None:
    """
    The same frames in the same window are the very same bytes again; in another window they are not.
    """
    recently = RecentlyCompressed()
    frames = text_frame(b"x" * 1000)
    first = recently(frames, 15)

    assert first == compressed(frames, 15)
    assert recently(bytes(bytearray(frames)), 15) is first
    assert recently(frames, 9) is not first
    assert len(recently) == 2


def test_what_is_remembered_of_compression_is_bounded() -> None:
    """
    A few entries, and a few bytes, are remembered: those used last, and always the last one.
    """
    recently = RecentlyCompressed(most=3, most_bytes=10_000)
    small = [text_frame(b"%d" % n * 500) for n in range(4)]
    first = recently(small[0], 15)
    for frames in small[1:3]:
        recently(frames, 15)
    assert recently(small[0], 15) is first
    recently(small[3], 15)
    assert len(recently) == 3
    assert recently(small[0], 15) is first
    large = text_frame(b"x" * 100_000)
    assert recently(large, 15) is recently(large, 15)
    assert len(recently) == 1
    recently(small[0], 15)
    assert len(recently) == 1
    assert recently.bytes < 10_000


def test_short_messages_and_pings_are_not_compressed() -> None:
    """
    It would not be worth it, and control frames must not be (RFC 7692, section 6.1).
    """
    stream = text_frame(b"{}") + PING_FRAME + text_frame(b"x" * 127)

    assert compressed(stream, 15) == stream
    assert compressed(b"", 15) == b""


@pytest.mark.parametrize("payload", [b"", b"x", b"\xff" * 125])
def test_pong_gives_back_what_the_ping_said(payload: bytes) -> None:
    """
    A Ping control frame is answered with its own payload (RFC 6455, section 5.5.3).
    """
    assert pong_control_frame(payload) == bytes((0x8A, len(payload))) + payload
