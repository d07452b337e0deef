"""
The connection that LISTENs to what other nodes say, and NOTIFYs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dcm_ws.postgres.connection import deadline
from dcm_ws.postgres.listen_connection import ListenConnection

ALL = "dcm_ws_bus"
"""
The channel of all nodes; that of one node has its name after it.
"""

PAYLOAD_MOST = 7_900
"""
Characters of a notification, at most.  PostgreSQL takes 7,999 bytes.
"""

_SEND_SECONDS = 5.0
# sooner than other connections that listen: what it does not read is lost anyway when its node is taken for gone
_SETTINGS = "set synchronous_commit = off; set tcp_user_timeout = 10000"
_NOTIFY = "select pg_catalog.pg_notify(channel, payload) from unnest(%s::text[], %s::text[]) as one (channel, payload)"


def channel_of(node: str) -> str:
    """
    The channel of one node; that of all for an empty name.
    """
    return f"{ALL}_{node}" if node else ALL


class BusConnection(ListenConnection):
    """
    A connection of one node.

    @param arrived: called with the payloads of other nodes, in order.
    @param echo: the name of a channel that only this connection uses.
    @param node: the name of the node; empty if it has none yet.
    """

    application = "dcm-ws bus"

    def __init__(self, reactor: Any, arrived: Callable[[list[str]], None], echo: str, node: str) -> None:
        super().__init__(reactor, arrived, echo, _nothing)
        self._channels = _channels(node)

    def channels(self) -> tuple[str, ...]:
        return tuple(f'"{channel}"' for channel in self._channels)

    async def prepare(self) -> None:
        """
        Make the settings of the session.
        """
        with deadline(self, _SEND_SECONDS):
            await self.runOperation(_SETTINGS)

    async def rename(self, node: str) -> None:
        """
        Listen to the channels of another name.
        """
        before, self._channels = self._channels, _channels(node)
        statements = [f'listen "{channel}"' for channel in self._channels if channel not in before]
        statements += [f'unlisten "{channel}"' for channel in before if channel not in self._channels]
        with deadline(self, _SEND_SECONDS):
            await self.runOperation(";".join(statements))

    async def send(self, channels: Sequence[str], payloads: Sequence[str]) -> None:
        """
        Notify, in one transaction.  Of equal payloads to one channel, PostgreSQL sends only one.
        """
        with deadline(self, _SEND_SECONDS, spare=self._hears_more()):
            await self.runOperation(_NOTIFY, (list(channels), list(payloads)))

    def take(self, notifies: list[Any]) -> None:
        own, channels = self.pollable().info.backend_pid, self._channels
        # PostgreSQL returns what this connection sent, too
        payloads = [notify.payload for notify in notifies if notify.pid != own and notify.channel in channels]
        if payloads:
            self._heard(payloads)


def _channels(node: str) -> tuple[str, ...]:
    return (ALL, channel_of(node)) if node else ()


def _nothing(*_: object) -> None:
    pass
