"""
Publishes the events of hooks and commands by HTTP, in order; keeps those that the service cannot take now, and sends
them later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from dcm_ws.cli.certificates import trusting
from dcm_ws.cli.folders import state_folder
from dcm_ws.cli.http_post import Answer, post
from dcm_ws.cli.options import Server
from dcm_ws.cli.spool import Spool

Post = Callable[[bytes, float], Answer]
"""
Publishes an event, or an array of events, within some seconds; raises what L{post} raises.
"""

BATCH_MAX = 50
"""
Kept events that are sent together: half of what the rate limit of production allows at once.
"""

BATCH_BYTES = 256 << 10
"""
Bytes of kept events that are sent together, a quarter of what a service accepts by default.
"""

_SLOW = 0.2
_REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}


class _Fate(Enum):
    PUBLISHED = 1
    REFUSED = 2
    LATER = 3


@dataclass(slots=True)
class Sent:
    """
    What became of kept events.
    """

    published: int = 0
    refused: int = 0


class Outbox:
    """
    @param post: sends a request.
    @param spool: keeps what cannot be published now.
    @param report: called with what goes wrong, as a line.
    """

    def __init__(self, post: Post, spool: Spool, report: Callable[[str], object]) -> None:
        self._post = post
        self._spool = spool
        self._report = report

    def publish(self, event: dict[str, Any], seconds: float, *, keep: bool = True) -> None:
        """
        Publish an event after all that wait; keep it if that is not possible now.

        @param event: as C{POST /v1/publish} takes it; with a key, so that it is not published twice.
        @param seconds: the time that it may take.
        @param keep: False for an event that is of no use later.
        @raise OSError: the event could not be kept.
        """
        text = json.dumps(event, separators=(",", ":")).encode()
        held = self._spool.is_held()
        if not held and self._spool.is_empty():
            if self._send([text], seconds) is _Fate.LATER and keep:
                self._spool.add(text)
            return
        if keep:
            self._spool.add(text)
        if not held:
            self.flush(seconds)

    def flush(self, seconds: float) -> Sent:
        """
        Publish what waits, the oldest first, unless another process does it.

        @param seconds: the time that it may take.
        """
        sent = Sent()
        deadline = time.monotonic() + seconds
        # again, because an event may be added between the last look and the end of C{sending}
        while not self._spool.is_empty():
            with self._spool.sending() as alone:
                if not alone or not self._send_all(deadline, sent):
                    break
        return sent

    def _send_all(self, deadline: float, sent: Sent) -> bool:
        """
        @return: False if something is left.
        """
        one_by_one = 0
        while batch := self._spool.first(1 if one_by_one else BATCH_MAX, BATCH_BYTES):
            left = deadline - time.monotonic()
            fate = self._send(batch, left) if left > 0 else _Fate.LATER
            if fate is _Fate.LATER:
                return False
            if fate is _Fate.REFUSED and len(batch) > 1:
                # nothing was published, because of one of them
                one_by_one = len(batch)
                continue
            if fate is _Fate.PUBLISHED:
                sent.published += len(batch)
            else:
                sent.refused += 1
            one_by_one = max(0, one_by_one - 1)
            self._spool.remove(batch)
        return True

    def _send(self, events: list[bytes], seconds: float) -> _Fate:
        began = time.monotonic()
        try:
            answer = self._post(events[0] if len(events) == 1 else b"[%s]" % b",".join(events), seconds)
        except (OSError, ValueError) as error:
            if time.monotonic() - began > _SLOW:
                # not each of the next ones is to wait as long
                self._spool.hold()
            self._report(f"the service does not answer: {error}")
            return _Fate.LATER
        fate = _fate(answer)
        if fate is not _Fate.PUBLISHED and not (fate is _Fate.REFUSED and len(events) > 1):
            then = "an event was dropped" if fate is _Fate.REFUSED else "trying again later"
            self._report(f"the service answers {answer.status}: {answer.reason or 'no reason'}; {then}")
        return fate


def _fate(answer: Answer) -> _Fate:
    if answer.status == HTTPStatus.OK:
        return _Fate.PUBLISHED
    # a reason says that the answer is from the service, and not from something in between
    return _Fate.REFUSED if answer.status in _REFUSED and answer.reason else _Fate.LATER


def poster(base: str, server: Server) -> Post:
    """
    What publishes to a service as one client.

    @param base: the URL of the service's HTTP, without a slash at its end.
    @param server: says who publishes, and which certificates are trusted.
    @raise click.ClickException: the file with the certificates cannot be used.
    """
    return partial(post, base, token=server.token, tls=trusting(server.cacert))


def spool_of(base: str, agent: str | None) -> Spool:
    """
    The spool of an agent for a service.
    """
    name = sha256(json.dumps([base, agent]).encode()).hexdigest()[:32]
    return Spool(state_folder() / "spool", name)
