"""
Connections of clients that wait for their agents: what they send is kept, in order.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from dcm_ws.protocol.errors import CloseCode
from tests.core.living import finish
from tests.core.owning import LateOwners
from tests.websocket.ends import End, Ground


@pytest.fixture
def owners() -> LateOwners:
    return LateOwners()


@pytest.fixture
def end(ground: Ground, owners: LateOwners) -> End:
    with_others = Ground(ground.reactor, owners=owners)
    finish(with_others.core.loading.load({}, ()))
    return with_others.connect()


def frame(message: dict[str, Any], first: int = 0x81) -> bytes:
    """
    A frame of a client: text, final, and masked with zeros.
    """
    payload = json.dumps(message).encode()
    size = len(payload)
    assert size < 126
    return bytes((first, 0x80 | size)) + bytes(4) + payload


def answers(end: End) -> list[Any]:
    """
    The ids of the requests that were answered.
    """
    return [message["id"] for message in end.take() if message.get("type") == "ack"]


AUTH = {"type": "auth", "agent_id": "ann", "id": 1}


def subscribe(number: int) -> dict[str, Any]:
    return {"type": "subscribe", "channel": f"topics/{number}", "id": number}


def arrives(end: End, *frames: bytes) -> None:
    end.transport._dataReceived(b"".join(frames))


def test_what_came_with_the_auth_is_kept(end: End, owners: LateOwners) -> None:
    """
    Also what is only a part of a frame; nothing more is read from the socket.
    """
    whole = frame(subscribe(3))
    arrives(end, frame(AUTH), frame(subscribe(2)), whole[:9])
    end.turn()
    assert answers(end) == []
    assert end.transport not in end.reactor.readers
    arrives(end, whole[9:], frame(subscribe(4)))
    owners.answer()
    assert answers(end) == []
    end.turn()
    assert answers(end) == [1, 2, 3, 4]
    assert end.transport in end.reactor.readers
    arrives(end, frame(subscribe(5)))
    end.turn()
    assert answers(end) == [5]


def test_messages_in_fragments(end: End, owners: LateOwners) -> None:
    """
    Autobahn reads all frames that it is given.
    """
    auth, ping = frame(AUTH), frame({"type": "ping"})
    middle = 20
    text = auth[6:]
    first = bytes((0x01, 0x80 | middle)) + bytes(4) + text[:middle]
    last = bytes((0x80, 0x80 | len(text) - middle)) + bytes(4) + text[middle:]
    arrives(end, first)
    arrives(end, last, frame(subscribe(2)), ping, frame(subscribe(3)))
    end.turn()
    assert answers(end) == []
    owners.answer()
    end.turn()
    assert answers(end) == [1, 2, 3]


def test_it_waits_again(end: End, owners: LateOwners) -> None:
    arrives(end, frame(AUTH), frame({**AUTH, "id": 2}), frame(subscribe(3)))
    owners.answer()
    end.turn()
    assert answers(end) == [1]
    arrives(end, frame(subscribe(4)))
    owners.answer()
    end.turn()
    assert answers(end) == [2, 3, 4]


def test_it_cannot_be_taken(end: End, owners: LateOwners) -> None:
    """
    The client's close frame is read, and nothing else is executed.
    """
    arrives(end, frame(AUTH), frame(subscribe(2)))
    owners.answer(False)
    end.turn()
    assert end.close_code() == CloseCode.TRY_AGAIN_LATER
    assert end.transport in end.reactor.readers
    arrives(end, b"\x88\x82" + bytes(4) + int(CloseCode.TRY_AGAIN_LATER).to_bytes(2))
    end.turn()
    assert answers(end) == []
    assert end.transport.disconnecting or end.transport.disconnected


def test_it_is_lost_while_it_waits(end: End, owners: LateOwners) -> None:
    arrives(end, frame(AUTH), frame(subscribe(2)))
    owners.answer()
    end.transport.connectionLost(Failure(ConnectionLost()))
    end.turn()
    assert end.connection._session is None
