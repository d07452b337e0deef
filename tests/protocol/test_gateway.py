"""
The messages between the service and its MCP process.
"""

from __future__ import annotations

import pytest

from dcm_ws.protocol.gateway import (
    Close,
    Closed,
    FromGateway,
    Listening,
    Message,
    Open,
    Renew,
    Sent,
    Taken,
    ToGateway,
    encode,
    from_gateway,
    to_gateway,
)


@pytest.mark.parametrize(
    "message",
    [
        Open(1, "ann", None, ["topics/a"], ["task.*"], ["bob"], True, "channel", 60, 4_000),
        Renew(1, "token"),
        Message(1, '{"a":\n"ä"}'),
        Listening(1, True),
        Taken(1, 2, False),
        Close(1),
    ],
)
def test_to_the_process(message: ToGateway) -> None:
    """
    What the service sends, the process reads, from one line.
    """
    line = encode(message)
    assert b"\n" not in line
    assert to_gateway.decode(line) == message


@pytest.mark.parametrize("message", [Sent(1, 2, "{}", "id", True), Sent(1, 3, "{}"), Closed(1, "kicked")])
def test_from_the_process(message: FromGateway) -> None:
    """
    What the process sends, the service reads.
    """
    assert from_gateway.decode(encode(message)) == message
