"""
What C{twistd dcm-ws} loads.
"""

from __future__ import annotations

from dcm_ws.app.commandline import Options
from dcm_ws.app.process import makeService

__all__ = ["Options", "makeService"]
