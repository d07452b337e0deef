"""
Channels as resources: C{dcm://channels/CHANNEL} has the latest events of a channel.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from mcp_types import Resource, ResourceTemplate

from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import ProtocolError

LATEST = 20
"""
Events in a resource.
"""

MIME_TYPE = "text/plain"

_PREFIX = "dcm://channels/"
# only the service knows which channels its operator has added
_channels = Channels(("*",))


def uri_of(channel: str) -> str:
    """
    The URI of a channel's resource.
    """
    return _PREFIX + quote(channel, safe="/")


def channel_of(uri: str) -> str | None:
    """
    The channel whose resource has this URI; None if there is no such resource.
    """
    channel = unquote(uri.removeprefix(_PREFIX))
    try:
        _channels.parse(channel)
    except ProtocolError:
        return None
    return channel if uri.startswith(_PREFIX) else None


def resource(channel: str) -> Resource:
    """
    The resource of a channel.
    """
    return Resource(
        uri=uri_of(channel),
        name=channel,
        description=f"The latest {LATEST} events of the channel {channel}.",
        mime_type=MIME_TYPE,
    )


TEMPLATE = ResourceTemplate(
    uri_template=_PREFIX + "{+channel}",
    name="channel",
    description=f"The latest {LATEST} events of a channel: global, agents/NAME, sessions/ID or topics/NAME.",
    mime_type=MIME_TYPE,
)
