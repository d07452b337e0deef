"""
What is refused before there is a WebSocket, counted as it happens.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class HttpCounts:
    """
    One object for all ports of a service.

    @ivar late_heads: connections that did not send a request head in time.
    @ivar long_heads: request heads that were too long.
    @ivar crowded_out: connections that were closed because too many had not sent a request head.
    @ivar late_requests: requests that were not complete in time.
    @ivar origins_refused: handshakes of web pages that may not connect.
    """

    late_heads: int = 0
    long_heads: int = 0
    crowded_out: int = 0
    late_requests: int = 0
    origins_refused: int = 0
