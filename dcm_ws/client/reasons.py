"""
The reasons why there is no connection, as text for people.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import urllib.error
from http import HTTPStatus

from websockets.exceptions import InvalidProxy, InvalidProxyStatus, InvalidStatus, InvalidURI, WebSocketException

REFUSED = "connection refused: nothing listens there"

PROXY = "the proxy that the environment names"

_BODY_MAX = 300
# the reasons of OpenSSL if it receives plain text
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")


def reason_of(error: BaseException, *, proxied: bool = False) -> str:
    """
    The text of an exception with which connecting failed, without Python's notation.

    @param proxied: the attempt went through a proxy, so it is the proxy that cannot be reached.
    """
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return reason_of(error.reason, proxied=proxied)
    if (
        proxied
        and isinstance(error, OSError)
        and not isinstance(error, TimeoutError | ssl.SSLError | urllib.error.HTTPError)
    ):
        return f"{PROXY}: {reason_of(error)}"
    if isinstance(error, InvalidProxy):
        # the text of the exception has the whole URL, which may contain a password
        return f"{PROXY} is invalid: {error.msg}"
    if isinstance(error, InvalidProxyStatus):
        return f"{PROXY} answered HTTP {error.response.status_code}"
    if isinstance(error, InvalidURI):
        return f"the server redirects to {error.uri}, which is not the address of a WebSocket"
    if isinstance(error, urllib.error.HTTPError):
        return http_reason(error.code, b"")
    if isinstance(error, InvalidStatus):
        return http_reason(error.response.status_code, error.response.body or b"")
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"unknown host: {error.strerror or error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        hint = "; the port may not speak TLS" if error.reason in _NO_TLS else ""
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}{hint}"
    if isinstance(error, OSError):
        return _system_reason(error)
    if isinstance(error, WebSocketException) and error.__cause__ is not None:
        return f"{error}: {error.__cause__}"
    return " ".join(str(error).split()) or type(error).__name__


def http_reason(status: int, body: bytes | bytearray) -> str:
    """
    An HTTP status that came instead of a WebSocket, with the error in the JSON body if there is one.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    text = f"the server answered HTTP {status} {phrase}".rstrip()
    try:
        said = json.loads(body)["error"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return text
    return f"{text}: {said[:_BODY_MAX]}" if isinstance(said, str) and said != phrase else text


def _system_reason(error: OSError) -> str:
    """
    The text of an error of the system.  If a host has several addresses, asyncio raises one error for all of them, with
    the numbers of their errors in its text.
    """
    numbers = {error.errno} if error.errno else {int(found) for found in re.findall(r"\[Errno (\d+)\]", str(error))}
    names = sorted(os.strerror(number) for number in numbers)
    if names == ["Connection refused"]:
        return REFUSED
    return "; ".join(names).lower() or str(error) or type(error).__name__
