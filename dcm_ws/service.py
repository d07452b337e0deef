"""
The service, for applications that embed it.
"""

from __future__ import annotations

from dcm_ws.app.build import make_service
from dcm_ws.app.errors import StartError
from dcm_ws.app.service import DCMService

__all__ = ["DCMService", "StartError", "make_service"]
