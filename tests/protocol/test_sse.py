"""
The text of event streams.
"""

from __future__ import annotations

import json

from dcm_ws.protocol.sse import (
    chunk,
    comment,
    control_event,
    data_event,
    gap_event,
    message_event,
    one_line,
    place_event,
    retry_field,
)


def test_messages_are_one_array() -> None:
    """
    A Durable Streams client gets several messages as one JSON array, and an id to come back with.
    """
    assert data_event([b'{"a":1}', b'{"b":2}'], "e_2") == b'event: data\ndata:[{"a":1},{"b":2}]\nid:e_2\n\n'


def test_control() -> None:
    """
    A control event says where the client is, and if there is more.
    """
    assert control_event("e_2", 7, up_to_date=False) == (
        b'event: control\ndata:{"streamNextOffset":"e_2","streamCursor":"7"}\nid:e_2\n\n'
    )
    assert b'"upToDate":true}' in control_event("e_2", 7, up_to_date=True)


def test_events_of_an_event_source() -> None:
    """
    A plain EventSource gets each message by itself; a place without data is no event for its page.
    """
    assert message_event(b'{"a":1}', "e_1") == b'data:{"a":1}\nid:e_1\n\n'
    assert place_event("e_1") == b"id:e_1\n\n"
    assert gap_event("expired", "e_5") == b'event: gap\ndata:{"reason":"expired","offset":"e_5"}\nid:e_5\n\n'
    assert comment("why") + retry_field(1500) == b": why\nretry:1500\n\n"


def test_line_breaks_do_not_end_an_event() -> None:
    """
    A publisher's JSON may have line breaks between its tokens: they cannot begin another field, or another event.
    """
    hostile = b'{"id":"x","data":{\r\n\n"a":\r1,\n\nevent: control\ndata: {}\n\n"b":"\\n"}}'
    assert b"\n" not in one_line(hostile)
    assert b"\r" not in one_line(hostile)
    pretty = json.dumps({"a": ["\n", 1]}, indent=2).encode()
    assert json.loads(one_line(pretty)) == {"a": ["\n", 1]}
    assert one_line(b'{"a":1}') == b'{"a":1}'
    for event in (data_event([hostile], "e_1"), message_event(hostile, "e_1")):
        assert event.count(b"\n\n") == 1


def test_chunk() -> None:
    """
    A chunk has its length in front of it, in hexadecimal.
    """
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
