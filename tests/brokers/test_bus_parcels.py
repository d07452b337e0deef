"""
Packets of the bus, and the texts of notifications that carry them.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.brokers.bus_parcels import HEAD_MOST, Parcel, ParcelKind, Unpacking, pack
from dcm_ws.brokers.bus_payloads import read_payload, write_payloads

MOST = HEAD_MOST + 100


class Unpacked:
    """
    Unpacks, and counts what was broken.
    """

    def __init__(self, most: int = 1 << 20) -> None:
        self.broken = 0
        self.unpacking = Unpacking(self.break_, most)

    def break_(self) -> None:
        self.broken += 1

    def feed(self, *packets: bytes) -> list[Parcel]:
        parcels = [self.unpacking.feed(packet) for packet in packets]
        return [parcel for parcel in parcels if parcel is not None]


def parcel(message: bytes, sender: str = "1", number: int = 7) -> Parcel:
    return Parcel(sender, "", ParcelKind.QUESTION, "events", number, message)


@given(st.binary(max_size=1000), st.integers(0, 10**12), st.sampled_from(ParcelKind))
def test_any_message(message: bytes, number: int, kind: ParcelKind) -> None:
    """
    What is packed is unpacked, whatever its size; no packet is larger than it may be.
    """
    sent = Parcel("x" * 32, "", kind, "y" * 32, number, message)
    packets = pack(sent, MOST)
    assert max(map(len, packets)) <= MOST
    unpacked = Unpacked()
    assert unpacked.feed(*packets) == [sent]
    assert unpacked.broken == 0


def test_senders_at_the_same_time() -> None:
    """
    Parts of different senders may be mixed.
    """
    one, two = parcel(b"a" * 250), parcel(b"b" * 250, "2")
    mixed = [packet for pair in zip(pack(one, MOST), pack(two, MOST), strict=True) for packet in pair]
    unpacked = Unpacked()
    assert unpacked.feed(*mixed) == [one, two]


@pytest.mark.parametrize("lost", range(4))
def test_lost_part(lost: int) -> None:
    """
    A message of which a part is lost, or comes twice, is not heard; the next one is.
    """
    packets, after = pack(parcel(b"a" * 400), MOST), parcel(b"b" * 250, number=8)
    assert len(packets) == 4
    for wrong in (packets[:lost] + packets[lost + 1 :], packets[: lost + 1] + packets[lost:]):
        unpacked = Unpacked()
        heard = unpacked.feed(*wrong, *pack(after, MOST))
        # a first or last part that comes twice does no harm
        assert heard[-1] == after
        assert len(heard) == 1 or (heard[0] == parcel(b"a" * 400) and len(wrong) == 5)
        assert unpacked.broken <= 1


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\n",
        b"nothing",
        b"2 m 1 events 7 0 1\nfrom the future",
        b"1 z 1 events 7 0 1\n",
        b"1 m 1 events x 0 1\n",
        b"1 m 1 events 7 0 0\n",
        b"1 m 1 events 7 0 1000000000\n",
        b"1 m 1 events 7 x 2\n",
        b"1 m 1 events 7 0 1 9\n",
        b"\xff m 1 events 7 0 1\n",
        b"1 m " + b"1" * 200 + b" events 7 0 1\n",
    ],
)
def test_what_is_no_packet(packet: bytes) -> None:
    """
    It is counted, and nothing else happens.
    """
    unpacked = Unpacked()
    assert unpacked.feed(packet, *pack(parcel(b"next"), MOST)) == [parcel(b"next")]
    assert unpacked.broken == 1


def test_too_much() -> None:
    """
    A message in parts that gets too large is dropped, and so are incomplete messages of many senders.
    """
    unpacked = Unpacked(most=250)
    assert unpacked.feed(*pack(parcel(b"x" * 251), MOST)) == []
    assert unpacked.broken == 1
    unpacked = Unpacked()
    for sender in range(100):
        unpacked.feed(*pack(parcel(b"x" * (1 << 19), str(sender)), 1 << 18)[:2])
    assert 0 < unpacked.broken < 100
    assert unpacked.unpacking._bytes <= 16 << 20


TEXTS = st.binary(max_size=300) | st.text("abc:\n", max_size=300).map(str.encode)


@given(st.lists(st.tuples(st.sampled_from(["", "1", "2"]), TEXTS), max_size=20))
def test_texts(messages: list[tuple[str, bytes]]) -> None:
    """
    Messages become texts of ASCII without NUL that are short enough, and these become the messages, in order.
    """
    sent = [Parcel("1", target, ParcelKind.MESSAGE, "t", n, message) for n, (target, message) in enumerate(messages)]
    unpacked, heard = Unpacked(), list[Parcel]()
    for target, text in write_payloads(sent, 300):
        assert len(text) <= 300
        assert text.isascii() and "\0" not in text
        heard += [one._replace(target=target) for one in unpacked.feed(*read_payload(text, unpacked.break_))]
    assert heard == sent
    assert unpacked.broken == 0


def test_small_messages_share_a_text() -> None:
    """
    Small messages to the same nodes that follow each other are in one text.
    """
    sent = [Parcel("1", target, ParcelKind.MESSAGE, "t", n, b"hi") for n, target in enumerate(["", "", "2", "2", ""])]
    assert [target for target, _ in write_payloads(sent, 300)] == ["", "2", ""]


@pytest.mark.parametrize("text", ["x", "t5", "t5:abc", "tx:abc", "t-1:abc", "t:", "b3:a=b", "t2:ü!", "t99999999999:a"])
def test_what_is_no_text(text: str) -> None:
    """
    It is counted, and nothing else happens.
    """
    unpacked = Unpacked()
    assert list(read_payload(text, unpacked.break_)) == []
    assert unpacked.broken == 1
