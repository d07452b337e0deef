"""
Events that are published together: all of them, or none (protocol, section 12).
"""

from __future__ import annotations

from collections import deque
from functools import partial

from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.ports import Later, Log
from dcm_ws.core.router import Router
from dcm_ws.protocol.channels import Channel

_OTHERS_A_TURN = 32


class Together:
    """
    Collects the events of one publisher, and publishes them.

    Those that are logged get into the log together.  Those that are not are delivered when the others are in the log,
    since they cannot be taken back.

    @param later: used if the delivery takes more than one turn.
    """

    def __init__(self, router: Router, log: Log, later: Later) -> None:
        self._router = router
        self._log = log
        self._later = later
        self._logged: list[tuple[Draft, Published]] = []
        self._others: deque[tuple[Draft, Published]] = deque()
        self._answers: list[Published] = []
        self._missing = 0

    def add(
        self, channel: Channel, event: str, data: bytes, sender: bytes, publisher: str | None, key: str = ""
    ) -> Published:
        """
        Add an event; the parameters are those of L{Router.publish}.  It waits, at least until L{publish} is called.
        """
        draft, logged = self._router.draft(channel, event, data, sender, publisher, key)
        published = Published(draft.id, waiting=True)
        if logged:
            self._logged.append((draft, Published(draft.id)))
            self._answers.append(published)
        else:
            self._others.append((draft, published))
        return published

    def publish(self) -> None:
        """
        Publish what was added.  The answers may come before this returns.
        """
        if self._logged:
            self._log.append_all(self._logged, self._later)
        waiting = [published for _, published in self._logged if published.waiting]
        self._missing = len(waiting)
        for published in waiting:
            published.then(self._one_answered)
        if not waiting:
            self._answer()

    def _one_answered(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._answer()

    def _answer(self) -> None:
        complete = True
        for (_, inner), published in zip(self._logged, self._answers, strict=True):
            complete = complete and inner.pos is not None
            published.id, published.duplicate = inner.id, inner.duplicate
            published.answer(inner.pos)
        self._answer_others(complete)

    def _answer_others(self, complete: bool) -> None:
        for _ in range(_OTHERS_A_TURN):
            if not self._others:
                return
            draft, published = self._others.popleft()
            if complete:
                self._router.publish_unlogged(draft)
            published.answer(0 if complete else None)
        self._later(partial(self._answer_others, complete))
