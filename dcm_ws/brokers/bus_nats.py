"""
The bus over NATS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from dcm_ws.brokers.bus_base import BaseBus
from dcm_ws.brokers.bus_parcels import HEAD_MOST, Parcel, ParcelKind, Unpacking, pack
from dcm_ws.core.counts import Counts
from dcm_ws.nats.client import NatsClient
from dcm_ws.nats.connection import Credentials
from dcm_ws.nats.reading import Message
from dcm_ws.nats.urls import Server

PREFIX = "dcm-ws"
"""
The first part of all subjects, if nothing else is set.
"""

_NO_RESPONDERS = b"NATS/1.0 503"


class NatsBus(BaseBus, Service):
    """
    A L{Bus<dcm_ws.core.ports.Bus>} whose messages go to the subjects C{PREFIX.CLUSTER.all} and
    C{PREFIX.CLUSTER.node.NODE}.

    If a node that is asked is gone, the server says so at once, to C{PREFIX.CLUSTER.gone.NODE.NUMBER}.

    @param prefix: of all subjects: one or more parts, with dots between them.
    """

    engine = "nats"

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[Server],
        *,
        prefix: str = PREFIX,
        credentials: Callable[[], Credentials],
        tls: Callable[[str], Any],
        counts: Counts,
        now: Callable[[], float],
        random: Callable[[], float],
        max_message: int,
        max_waiting: int,
    ) -> None:
        super().__init__(reactor.callLater, now, counts, max_message=max_message, max_waiting=max_waiting)
        self._prefix = prefix
        self._subject = ""
        self._all = self._gone = b""
        self._sids: list[bytes] = []
        self._unpacking = Unpacking(self._broken, self._most)
        self._client = NatsClient(
            reactor,
            servers,
            name=lambda: f"dcm-ws {self.node}".strip(),
            credentials=credentials,
            tls=tls,
            up=lambda server: self._is_up(f"connected to NATS at {server}"),
            down=self._is_down,
            writable=self._flush,
            probed=self._probed,
            now=now,
            random=random,
        )

    def startService(self) -> None:
        Service.startService(self)
        self._client.startService()

    def stopService(self) -> Deferred[None] | None:
        Service.stopService(self)
        return self._client.stopService()

    def _named(self) -> None:
        client = self._client
        for sid in self._sids:
            client.unsubscribe(sid)
        self._subject = subject = f"{self._prefix}.{self._cluster}."
        self._all = f"{subject}all".encode()
        self._gone = f"{subject}gone.{self.node}.".encode()
        self._sids = [
            client.subscribe(self._all, self._arrived),
            client.subscribe(f"{subject}node.{self.node}".encode(), self._arrived),
            client.subscribe(self._gone + b"*", self._nobody),
        ]

    def _may_send(self) -> bool:
        return self._client.writable

    def _transmit(self, parcel: Parcel) -> None:
        client = self._client
        target = f"{self._subject}node.{parcel.target}".encode() if parcel.target else self._all
        reply = self._gone + b"%d" % parcel.number if parcel.kind is ParcelKind.QUESTION else b""
        for packet in pack(parcel, max(client.max_payload, 2 * HEAD_MOST)):
            client.publish(target, packet, reply)

    def _arrived(self, message: Message) -> None:
        parcel = self._unpacking.feed(message.payload)
        if parcel is not None:
            self._receive(parcel)

    def _nobody(self, message: Message) -> None:
        number = message.subject[len(self._gone) :]
        if message.headers.startswith(_NO_RESPONDERS) and number.isdigit():
            self._no_answer(int(number))

    def _probed(self, seconds: float) -> None:
        self._rtt = round(seconds * 1000, 3)
        self._counts.probe_seconds.observe(seconds)
