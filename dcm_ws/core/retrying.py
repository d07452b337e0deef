"""
Deliveries that clients have not acknowledged in time.
"""

from __future__ import annotations

from collections.abc import Iterator

from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.giving_up import GivingUp
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.rights import may_receive
from dcm_ws.core.session import Session


class Retrying:
    """
    Sends again what is due, or gives it up.
    """

    def __init__(
        self, counts: Counts, *, deliveries: DeliveryQueue, giving_up: GivingUp, resumption: Resumption
    ) -> None:
        self._sent = counts.sent
        self._deliveries = deliveries
        self._giving_up = giving_up
        self._resumption = resumption

    def sweep(self) -> Iterator[None]:
        """
        Send again, or give up, the deliveries that are due, one a step.
        """
        for late in self._deliveries.late():
            if late is None:
                yield
                continue
            client, frames, event, deliveries = late
            assert isinstance(client, Session)
            if frames and not may_receive(client.rights, event):
                sends = client.owed[event.id].sends
                self._deliveries.forget(client, event.id)
                self._giving_up.give_up(client, event, sends + event.earlier, "rights")
            elif frames:
                self._sent.again += len(frames)
                client.peer.send(b"".join(frames))
                if deliveries:
                    self._resumption.pass_on(client, event, deliveries)
            else:
                self._giving_up.give_up(client, event, deliveries, "attempts")
            yield
