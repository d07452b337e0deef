"""
Names the command C{twistd dcm-ws}.
"""

from twisted.application.service import ServiceMaker

dcm_ws = ServiceMaker(
    "dcm-ws",
    "dcm_ws.tap",
    "Real-time events from PostgreSQL to WebSocket channels",
    "dcm-ws",
)
