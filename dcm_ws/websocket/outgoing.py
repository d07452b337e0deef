"""
What is sent to a WebSocket client, with or without compression.
"""

from __future__ import annotations

from dcm_ws.http.sending import Sending
from dcm_ws.protocol.frames import RecentlyCompressed
from dcm_ws.websocket.autobahn import LeanProtocol

# An event is compressed once for all clients: without context takeover the result is the same for everyone.
_compressed = RecentlyCompressed()


class Outgoing(Sending, LeanProtocol):  # type: ignore[misc]  # a base of Autobahn's has no types
    """
    The sending half of a WebSocket connection.
    """

    def write_slowly(self, data: bytes) -> bool:
        if not self.may_send:
            return True
        if self.window_bits is not None:
            data = _compressed(data, self.window_bits)
        self.transport.write(data)
        return False
