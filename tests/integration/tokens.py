"""
Tokens as another implementation would make them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

SECRET = "0123456789abcdef0123456789abcdef-prod"
DEVELOPMENT_SECRET = "dcm-dev-secret-change-me"


def make_token(agent: str, session: str | None = None, *, secret: str = SECRET, seconds: float = 3600) -> str:
    """
    A token as another implementation would issue it, which expires in so many seconds.
    """
    now = time.time_ns() // 1_000_000
    claims = {"agent_id": agent, "issued_at": now, "expires_at": now + int(seconds * 1000)}
    payload = json.dumps(claims if session is None else claims | {"session_id": session}).encode()
    signature = hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()
    return f"{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{signature}"
