"""
dcm-ws: real-time events from PostgreSQL to WebSocket channels.
"""

from dcm_ws.service import make_service
from dcm_ws.settings import Settings, SettingsError
from dcm_ws.version import VERSION

__version__ = VERSION
__all__ = ["Settings", "SettingsError", "__version__", "make_service"]
