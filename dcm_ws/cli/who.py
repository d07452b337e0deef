"""
Which agent a token is for.
"""

from __future__ import annotations

import base64
import json

from dcm_ws.cli.options import Server

_NAMES = {2: (0, "agent_id"), 3: (1, "sub")}
"""
By the number of parts of a token: the part with the claims, and the name of the one that names the agent.
"""


def agent_of(server: Server) -> str | None:
    """
    The agent that the command connects as; None if there is none, or the token does not say.  The token is not
    verified: the service does that.
    """
    if server.token is None:
        return server.agent_id or None
    parts = server.token.split(".")
    number, name = _NAMES.get(len(parts), (0, ""))
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[number] + "=="))
    except (ValueError, RecursionError):
        return None
    agent = claims.get(name) if isinstance(claims, dict) else None
    return agent if isinstance(agent, str) and agent else None
