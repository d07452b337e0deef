"""
dcm-ws: real-time events from PostgreSQL to WebSocket channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcm_ws.version import VERSION

if TYPE_CHECKING:
    from dcm_ws.app.build import make_service
    from dcm_ws.app.settings import Settings, SettingsError

__version__ = VERSION
__all__ = ["Settings", "SettingsError", "__version__", "make_service"]


def __getattr__(name: str) -> Any:
    # Twisted takes a third of a second to import, and not every command needs it
    if name == "make_service":
        from dcm_ws.app.build import make_service

        return make_service
    if name in ("Settings", "SettingsError"):
        from dcm_ws.app import settings

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
