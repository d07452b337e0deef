"""
What C{twistd dcm-ws} loads.
"""

from __future__ import annotations

from dcm_ws.app.commandline import Options
from dcm_ws.app.twistd import makeService

__all__ = ["Options", "makeService"]
