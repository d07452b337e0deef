"""
WebSocket clients that are not ours, and the messages that tests exchange with them.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.integration.machine import PATIENCE


class Client(ClientConnection):
    """
    A client that is not ours.

    @ivar connected: the first frame that it received.
    """

    connected: dict[str, Any]


class RawClient:
    """
    A WebSocket client that answers neither pings nor close frames, and reads only when the test calls for it.

    @ivar socket: its connection.
    """

    connected: dict[str, Any]

    def __init__(
        self, plain: socket.socket, path: str, more: bytes = b"", *headers: str, host: str = "127.0.0.1"
    ) -> None:
        self.socket = plain
        self._data = b""
        plain.sendall(handshake(path, *headers, host=host) + more)
        while b"\r\n\r\n" not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    def read(self) -> tuple[int, bytes]:
        """
        The opcode and the payload of the next frame.
        """
        size, start = self._part(2)[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self._part(start)[2:])
        opcode, payload = self._data[0] & 0x0F, self._part(start + size)[start:]
        self._data = self._data[start + size :]
        return opcode, payload

    def hear(self) -> dict[str, Any]:
        """
        The next message that is not a ping.
        """
        while True:
            opcode, payload = self.read()
            if opcode == 1:
                message: dict[str, Any] = json.loads(payload)
                if message.get("type") != "ping":
                    return message

    def close_code(self) -> int:
        """
        Read until the close frame; returns its code.
        """
        while True:
            opcode, payload = self.read()
            if opcode == 8:
                return int.from_bytes(payload[:2])

    def _part(self, size: int) -> bytes:
        while len(self._data) < size:
            self._receive()
        return self._data[:size]

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, f"the connection ended after {self._data!r}"
        self._data += data


def handshake(path: str = "/", *headers: str, version: int = 13, host: str = "127.0.0.1") -> bytes:
    """
    The request that opens a WebSocket.
    """
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Sec-WebSocket-Version: {version}",
        *headers,
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def client_frame(payload: bytes, opcode: int = 1) -> bytes:
    """
    A short frame as a client sends it, masked with zeros.
    """
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


def say(client: ClientConnection, **message: Any) -> None:
    """
    Send one message.
    """
    client.send(json.dumps(message))


def hear(client: ClientConnection, timeout: float = PATIENCE) -> dict[str, Any]:
    """
    The next message that is not a ping.
    """
    while True:
        message: dict[str, Any] = json.loads(client.recv(timeout=timeout))
        if message.get("type") != "ping":
            return message


def hear_event(client: ClientConnection, name: str, timeout: float = PATIENCE) -> dict[str, Any]:
    """
    The next event of that name, whatever comes before it.
    """
    while True:
        message = hear(client, timeout)
        if message.get("event") == name:
            return message


def ask(client: ClientConnection, **message: Any) -> dict[str, Any]:
    """
    Send one message; returns the next message that is not a ping.
    """
    say(client, **message)
    return hear(client)


def answer_to(client: ClientConnection, request: object) -> dict[str, Any]:
    """
    The answer to the message with this id, past the events that come before it.
    """
    while (message := hear(client)).get("id") != request:
        pass
    return message


def ask_past_events(client: ClientConnection, **message: Any) -> dict[str, Any]:
    """
    Send one message with an id; returns its answer, which must be a success, past the events that come before it.
    """
    say(client, **message)
    answer = answer_to(client, message["id"])
    assert answer["success"] is True, answer
    return answer


def unsubscribe_global(client: ClientConnection) -> None:
    """
    From now on the client receives only the events that it subscribes to.
    """
    ask_past_events(client, type="unsubscribe", channel="global", id="left")


def close_of(client: ClientConnection, timeout: float = PATIENCE) -> tuple[int, str]:
    """
    Read until the server closes the connection; returns the code and the reason.
    """
    try:
        while True:
            client.recv(timeout=timeout)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, closed
        return closed.rcvd.code, closed.rcvd.reason


def silence(client: ClientConnection) -> None:
    """
    Check that the client has not been sent anything: the answer to a ping comes next.
    """
    assert ask(client, type="ping")["type"] == "pong"
