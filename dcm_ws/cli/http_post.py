"""
C{POST /v1/publish} on a plain socket.  Python's package for HTTP takes 30 ms to import, which is too much for a hook
that runs at each use of a tool.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from dcm_ws.version import VERSION

if TYPE_CHECKING:
    # 10 ms to import
    import ssl

ANSWER_MAX = 1 << 20
"""
The longest answer, in bytes: one for a thousand events takes a tenth of it.
"""

_PATH = "/v1/publish"


class Answer(NamedTuple):
    """
    What the service answers.

    @ivar status: of HTTP.
    @ivar reason: the error that the service names; empty if it is not one of this service.
    """

    status: int
    reason: str


def post(
    base: str, body: bytes, seconds: float, *, token: str | None = None, tls: ssl.SSLContext | None = None
) -> Answer:
    """
    Publish an event, or an array of events.

    @param base: the URL of the service's HTTP, without a slash at its end.
    @param seconds: the time that it may take in all, with looking up the host.
    @param token: of the client that publishes; None for none.
    @param tls: trusts the certificate of the service; None to trust the authorities of the system.
    @raise OSError: there is no answer, or not in time; the events may have been published.
    @raise ValueError: what answers does not speak HTTP.
    """
    deadline = time.monotonic() + seconds
    result: list[Answer | OSError | ValueError] = []

    def work() -> None:
        try:
            result.append(_post(base, body, token, deadline, tls))
        except (OSError, ValueError) as error:
            result.append(error)

    # looking up a host has no time limit of its own
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result or isinstance(result[0], TimeoutError):
        # whichever of the two noticed it first
        raise TimeoutError(f"no answer in {seconds:g} s")
    if isinstance(result[0], Answer):
        return result[0]
    raise result[0]


def _post(base: str, body: bytes, token: str | None, deadline: float, tls: ssl.SSLContext | None) -> Answer:
    parts = urlsplit(base)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    lines = [
        # the server closes the connection after its answer, and does not send it in chunks
        f"POST {_PATH} HTTP/1.0",
        f"Host: {parts.netloc}",
        f"User-Agent: dcm-ws/{VERSION}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")
    port = parts.port or (443 if secure else 80)
    # Python imports an encoding for a host that is not in bytes
    name: Any = host.encode() if host.isascii() else host
    with socket.create_connection((name, port), timeout=_left(deadline)) as plain:
        if not secure:
            return _exchange(plain, head + body, deadline)
        if tls is None:
            import ssl

            tls = ssl.create_default_context()
        with tls.wrap_socket(plain, server_hostname=host) as secured:
            return _exchange(secured, head + body, deadline)


def _exchange(connection: socket.socket, request: bytes, deadline: float) -> Answer:
    connection.settimeout(_left(deadline))
    connection.sendall(request)
    answer = bytearray()
    while len(answer) < ANSWER_MAX:
        connection.settimeout(_left(deadline))
        piece = connection.recv(65_536)
        if not piece:
            break
        answer += piece
    return _parsed(bytes(answer))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _parsed(answer: bytes) -> Answer:
    """
    @raise ConnectionError: there is no answer.
    @raise ValueError: it is not HTTP.
    """
    if not answer:
        raise ConnectionError("the connection was closed without an answer")
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        raise ValueError("what answers does not speak HTTP")
    return Answer(int(words[1]), _reason(body))


def _reason(body: bytes) -> str:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = fields.get("error") if isinstance(fields, dict) else None
    return error if isinstance(error, str) else ""
