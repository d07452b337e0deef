"""
The service, for applications that embed it.
"""

from __future__ import annotations

from dcm_ws.app.service import DCMService, StartError, make_service

__all__ = ["DCMService", "StartError", "make_service"]
