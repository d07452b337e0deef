"""
What tests of the protocol write and read: ids of requests, and text frames.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from dcm_ws.protocol.errors import NO_REQUEST
from tests.fakes import split_frames


def request(value: object) -> Raw:
    """
    An id as a request says it.
    """
    return NO_REQUEST if value is None else Raw(json.dumps(value).encode())


def read(frames: bytes) -> dict[str, Any]:
    """
    The message in a stream of just one text frame.
    """
    ((opcode, payload),) = split_frames(frames)
    assert opcode == 1
    message: dict[str, Any] = json.loads(payload)
    return message
