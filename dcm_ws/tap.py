"""
What C{twistd dcm-ws} loads.
"""

from __future__ import annotations

from dcm_ws.app.twistd import Options, makeService

__all__ = ["Options", "makeService"]
