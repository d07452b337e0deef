"""
Reads C{/health} and C{/stats} of a service by HTTP, for C{dcm-ws top}.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from dcm_ws.cli.certificates import advice, trusting
from dcm_ws.cli.options import Server
from dcm_ws.cli.terminal import harmless
from dcm_ws.client.reasons import REFUSED, reason_of
from dcm_ws.client.urls import is_loopback, is_proxied

Part = dict[str, Any]
"""
The JSON of one page.
"""

Report = dict[str, Part]
"""
The pages by name: C{health} and C{stats}.
"""

ANSWER_MAX = 16 << 20
"""
The bytes of an answer that are read.
"""

ERRORS = (OSError, ValueError, http.client.HTTPException)
"""
What L{fetch} raises if there is no report.
"""

_NOT_OURS = "it is not a dcm-ws service"
_NUMBER_MAX = 1e18
_TIMEOUT = 8.0
_DRAINING = 503


def fetch(base: str, server: Server) -> Report:
    """
    @param base: the URL of the service's HTTP, without a slash at its end.
    @param server: says who asks, and which certificates are trusted.
    @raise Exception: one of L{ERRORS}.
    """
    report = {"health": _get(f"{base}/health", server), "stats": _get(f"{base}/stats", server)}
    if number_at(report["stats"], "connectedClients") is None:
        raise ValueError(_NOT_OURS)
    return report


def explain(base: str, error: BaseException) -> str:
    """
    Why there is no report, in a line.
    """
    reason = reason_of(error, proxied=is_proxied(base))
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        reason = f"it does not speak HTTP: {reason}"
    if reason == REFUSED:
        return f"nothing listens at {base} (connection refused)"
    verb = "" if isinstance(error, urllib.error.HTTPError) else " does not answer"
    return f"{base}{verb}: {harmless(reason)}{advice(error)}"


def number_at(part: Part, place: str) -> int | float | None:
    """
    The number at a place in a page, such as C{deliveries.acked}; None if there is none.
    """
    value: Any = part
    for name in place.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if is_number(value) else None


def is_number(value: object) -> TypeGuard[int | float]:
    """
    Whether it is a finite number that can be computed with.
    """
    return isinstance(value, int | float) and abs(value) < _NUMBER_MAX


def open_url(request: urllib.request.Request, server: Server, seconds: float) -> Any:
    """
    Send a request with the token.

    @return: the response, as C{urlopen} returns it.
    @raise Exception: one of L{ERRORS}.
    """
    if server.token:
        # a server that the answer redirects to must not get it
        request.add_unredirected_header("Authorization", f"Bearer {server.token}")
    handlers: list[urllib.request.BaseHandler] = []
    if is_loopback(urlsplit(request.full_url).hostname or ""):
        # a proxy that the environment names cannot reach this machine
        handlers.append(urllib.request.ProxyHandler({}))
    if (context := trusting(server.cacert)) is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers).open(request, timeout=seconds)


def _get(url: str, server: Server) -> Part:
    try:
        with open_url(urllib.request.Request(url), server, _TIMEOUT) as answer:
            part = _parsed(answer.read(ANSWER_MAX))
    except urllib.error.HTTPError as error:
        # a service that is draining answers with 503, and with the page
        part = _parsed(error.read(ANSWER_MAX)) if error.code == _DRAINING else None
        if part is None:
            raise
    if part is None:
        raise ValueError(_NOT_OURS)
    return part


def _parsed(body: bytes) -> Part | None:
    """
    The page; None if it is not from a dcm-ws service.
    """
    try:
        part = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return part if isinstance(part, dict) else None
