"""
Channels by name, for applications that embed the service.
"""

from __future__ import annotations

from dcm_ws.protocol.channels import GLOBAL, METRICS, Channel, Channels, agent_channel, parse_channel, session_channel

__all__ = ["GLOBAL", "METRICS", "Channel", "Channels", "agent_channel", "parse_channel", "session_channel"]
