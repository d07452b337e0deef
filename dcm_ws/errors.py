"""
What a client may do wrong, for applications that embed the service.
"""

from __future__ import annotations

from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError

__all__ = ["CloseCode", "ErrorCode", "ProtocolError"]
