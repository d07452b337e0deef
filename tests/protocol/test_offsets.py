"""
Offsets in streams.
"""

from __future__ import annotations

import pytest

from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.offsets import BEGINNING, NOW, Offset, parse_offset


def test_offset_is_read_as_it_was_written() -> None:
    """
    An offset survives its way to the client and back.
    """
    for pos in (0, 1, 10**15, 10**16 - 1):
        assert parse_offset(str(Offset("k3v9x2mt", pos))) == Offset("k3v9x2mt", pos)


def test_offsets_sort_as_text() -> None:
    """
    Clients may compare offsets as text (Durable Streams 1.0, section 8).
    """
    offsets = [str(Offset("k3v9x2mt", pos)) for pos in (0, 9, 10, 99, 100, 12_345_678, 10**15)]
    assert offsets == sorted(offsets)
    assert all(not set(offset) & set(",&=?/") for offset in offsets)


def test_sentinels() -> None:
    """
    C{-1} and C{now} are offsets, and no other offset reads as one of them.
    """
    assert parse_offset("-1") is BEGINNING
    assert parse_offset("now") is NOW
    assert parse_offset(str(Offset("now", 0))) == Offset("now", 0)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "0", "-2", "NOW", "a,b", "epoch_1", "epoch_00000000000000001", "_0000000000000001"),
        *("e h_0000000000000001", "../etc_0000000000000001", "epoch_000000000000000a"),
        *(
            "epoch_000000000000000\N{ARABIC-INDIC DIGIT ONE}",
            "x" * 65 + "_0000000000000001",
            "epoch_0000000000000001\n",
        ),
    ],
)
def test_malformed_offset(text: str) -> None:
    """
    What is not an offset is refused.
    """
    with pytest.raises(ProtocolError) as caught:
        parse_offset(text)
    assert caught.value.code is ErrorCode.INVALID_MESSAGE
