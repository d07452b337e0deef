"""
Clients over HTTP, as the process that speaks MCP sees them, and where it keeps their positions.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCResponse

from dcm_ws.client import PositionError
from dcm_ws.mcp import positions as module
from dcm_ws.mcp.exchange import Exchange
from dcm_ws.mcp.far_end import NotListeningError
from dcm_ws.mcp.positions import Positions
from dcm_ws.protocol.gateway import Sent


class Ends:
    """
    An exchange, and what came out of it.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.written: list[Any] = []
        self.unwritten: list[Any] = []
        self.exchange = Exchange(7, self.sent.append, self.written.append, self.unwritten.append)


def test_answers() -> None:
    """
    The server learns of each answer whether the client has got it, in whatever order that becomes known.
    """

    async def program() -> None:
        ends = Ends()
        writing = asyncio.create_task(ends.exchange.write())
        for number in (1, 2):
            await ends.exchange.writing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=number, result={})))
        error: Any = {"code": 1, "message": "no"}
        await ends.exchange.writing.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id="x", error=error)))
        await ends.exchange.writing.aclose()
        await writing
        assert [(sent.number, sent.answers, sent.failed) for sent in ends.sent] == [
            (1, 1, False),
            (2, 2, False),
            (3, "x", True),
        ]
        for number, read in ((3, True), (1, False), (1, True), (9, True)):
            ends.exchange.taken(number, read)
        assert (ends.written, ends.unwritten) == (["x"], [1])

    asyncio.run(program())


def test_notifications() -> None:
    """
    They are only sent while the client listens; a notification returns when the client has got it, and fails if it has
    not.
    """

    async def program() -> None:
        ends = Ends()
        with pytest.raises(NotListeningError):
            await ends.exchange.notify("x", {})
        assert not ends.sent
        ends.exchange.listening(True)
        await ends.exchange.listens()
        for read in (True, False):
            notifying = asyncio.create_task(ends.exchange.notify("notifications/x", {"n": 1}))
            await asyncio.sleep(0)
            assert json.loads(ends.sent[-1].text)["params"] == {"n": 1} and not notifying.done()
            ends.exchange.taken(ends.sent[-1].number, read)
            if read:
                await notifying
            else:
                with pytest.raises(NotListeningError):
                    await notifying
        ends.exchange.listening(False)
        writing = asyncio.create_task(ends.exchange.write())
        await ends.exchange.writing.send(SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="x")))
        await ends.exchange.writing.aclose()
        await writing
        assert len(ends.sent) == 2

    asyncio.run(program())


def test_messages() -> None:
    """
    What the client sends is read, and what is not a message is an error.
    """

    async def program() -> None:
        ends = Ends()
        ends.exchange.received('{"jsonrpc":"2.0","method":"x"}')
        ends.exchange.received('{"jsonrpc":"1.0"}')
        reading = asyncio.create_task(ends.exchange.read())
        first, second = await ends.exchange.reading.receive(), await ends.exchange.reading.receive()
        assert first.message.method == "x" and isinstance(second, ValueError)  # type: ignore[union-attr]
        reading.cancel()

    asyncio.run(program())


def test_position_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A later session of an agent with the same channels gets it; one at the same time does not; the oldest are forgotten.
    """
    kept = Positions(None)
    first = kept.take("ann", ["topics/b", "topics/a"])
    assert first is not None and first.load() is None
    first.save({"n": 1})
    assert kept.take("ann", ["topics/a", "topics/b"]) is None
    first.close()  # type: ignore[attr-defined]
    again, other = kept.take("ann", ["topics/a", "topics/b"]), kept.take("bob", ["topics/a", "topics/b"])
    assert again is not None and other is not None
    assert again.load() == {"n": 1} and other.load() is None
    monkeypatch.setattr(module, "KEPT_MAX", 1)
    other.save({"n": 2})
    assert again.load() is None and other.load() == {"n": 2}


def test_position_in_a_folder(tmp_path: Path) -> None:
    """
    It is in a file, which another process finds, and which only one uses at a time.
    """
    state = {"epoch": "e", "agent": "ann", "channels": {"agents/ann": 3}, "own": []}
    first = Positions(tmp_path).take("ann", [])
    assert first is not None and first.load() is None
    first.save(state)
    other = Positions(tmp_path).take("ann", [])
    assert other is not None
    with pytest.raises(PositionError):
        other.load()
    first.close()  # type: ignore[attr-defined]
    assert other.load() == state
