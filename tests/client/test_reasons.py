"""
Why there is no connection, in words for people.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage, InvalidProxy, InvalidProxyStatus, InvalidStatus, InvalidURI
from websockets.http11 import Response

from dcm_ws.client.reasons import REFUSED, reason_of
from dcm_ws.client.status import REPEATED, Status


def status(code: int, body: bytes = b"") -> InvalidStatus:
    """
    What websockets raises where HTTP is answered in place of a WebSocket.
    """
    return InvalidStatus(Response(code, "", Headers(), body))


def verification_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


def wrong_version() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


def invalid_message() -> InvalidMessage:
    error = InvalidMessage("did not receive a valid HTTP response")
    error.__cause__ = ValueError("invalid HTTP status line: SSH-2.0")
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9)"), REFUSED),
        (URLError(ConnectionRefusedError(111, "Connection refused")), REFUSED),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"), REFUSED),
        (
            OSError("Multiple exceptions: [Errno 101] Connect call failed, [Errno 111] Connect call failed"),
            "connection refused; network is unreachable",
        ),
        (OSError(errno.EHOSTUNREACH, "Connect call failed"), "no route to host"),
        (OSError("odd"), "odd"),
        (OSError(), "OSError"),
        (socket.gaierror(-2, "Name or service not known"), "unknown host: Name or service not known"),
        (URLError(socket.gaierror(-2, "Name or service not known")), "unknown host: Name or service not known"),
        (TimeoutError("timed out during opening handshake"), "no answer in time"),
        (verification_error(), "TLS: the certificate is not accepted: self-signed certificate"),
        (wrong_version(), "TLS: wrong version number; the port may not speak TLS"),
        (status(404), "the server answered HTTP 404 Not Found"),
        (status(401, b'{"error":"Invalid token"}'), "the server answered HTTP 401 Unauthorized: Invalid token"),
        (status(404, b'{"error":"Not Found"}'), "the server answered HTTP 404 Not Found"),
        (status(403, b'{"error":["odd"]}'), "the server answered HTTP 403 Forbidden"),
        (status(502, b"<html>"), "the server answered HTTP 502 Bad Gateway"),
        (status(799, b"[" * 100_000), "the server answered HTTP 799"),
        (HTTPError("http://h/", 403, "Forbidden", Message(), None), "the server answered HTTP 403 Forbidden"),
        (
            InvalidURI("http://h/", "scheme isn't ws or wss"),
            "the server redirects to http://h/, which is not the address of a WebSocket",
        ),
        (
            InvalidProxy("ftp://user:secret@p:1", "scheme ftp isn't supported"),
            "the proxy that the environment names is invalid: scheme ftp isn't supported",
        ),
        (
            InvalidProxyStatus(Response(407, "", Headers(), b"")),
            "the proxy that the environment names answered HTTP 407",
        ),
        (invalid_message(), "did not receive a valid HTTP response: invalid HTTP status line: SSH-2.0"),
        (ValueError("two\nlines"), "two lines"),
        (ValueError(), "ValueError"),
    ],
)
def test_reasons(error: BaseException, text: str) -> None:
    """
    What happened, without errno in brackets, addresses as tuples or angle brackets.
    """
    assert reason_of(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), f"the proxy that the environment names: {REFUSED}"),
        (
            URLError(socket.gaierror(-2, "Name or service not known")),
            "the proxy that the environment names: unknown host: Name or service not known",
        ),
        (TimeoutError(), "no answer in time"),
        (wrong_version(), "TLS: wrong version number; the port may not speak TLS"),
        (status(404), "the server answered HTTP 404 Not Found"),
        (HTTPError("http://h/", 403, "Forbidden", Message(), None), "the server answered HTTP 403 Forbidden"),
    ],
)
def test_reasons_with_a_proxy(error: BaseException, text: str) -> None:
    """
    If a proxy was to be the way, it is the proxy that cannot be reached; what the service says is the service's.
    """
    assert reason_of(error, proxied=True) == text


class Logging(Status):
    """
    A client that does nothing but keep what it logs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[str, str]] = []

    def _warn(self, text: str) -> None:
        self.logged.append(("warning", text))

    def _debug(self, text: str) -> None:
        self.logged.append(("debug", text))

    def _report(self, text: str) -> None:
        self.logged.append(("exception", text))


@pytest.fixture
def logged() -> tuple[Callable[[str, float | None, float], None], list[tuple[str, str]]]:
    client = Logging()
    return client._log_end, client.logged


def test_failures_are_logged(logged: tuple[Callable[..., None], list[tuple[str, str]]]) -> None:
    """
    A failure is a warning with the time of the next attempt.  The same one again is one only after a minute.
    """
    fail, lines = logged
    fail("refused", 0.25, 0.0)
    fail("refused", 1.0, 1.0)
    fail("refused", 1.0, REPEATED - 0.1)
    fail("refused", 30.0, REPEATED)
    fail("refused", 30.0, REPEATED + 1)
    fail("unknown host", 2.0, REPEATED + 2)
    fail("refused", 2.0, REPEATED + 3)
    fail("Invalid token", None, REPEATED + 4)
    assert lines == [
        ("warning", "refused; next attempt in 0.2 s"),
        ("debug", "refused; next attempt in 1.0 s"),
        ("debug", "refused; next attempt in 1.0 s"),
        ("warning", "refused; next attempt in 30.0 s"),
        ("debug", "refused; next attempt in 30.0 s"),
        ("warning", "unknown host; next attempt in 2.0 s"),
        ("warning", "refused; next attempt in 2.0 s"),
        ("warning", "Invalid token; it will not connect again"),
    ]
