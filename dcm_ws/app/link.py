"""
A worker's end of the channel to its supervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, assert_never

import msgspec
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.python.failure import Failure

from dcm_ws.app.control import (
    NOTHING,
    Answer,
    Ask,
    Check,
    Drain,
    Gather,
    Gathered,
    IsStopping,
    Locate,
    Located,
    Renew,
    Start,
    ToWorker,
    encode,
    to_supervisor,
)
from dcm_ws.http import gathering
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.data_folder import EmbeddedError

_GATHER_SECONDS = 1.0
_ENDED = "the supervisor has ended"


class Link:
    """
    What a worker asks its supervisor, and is asked.

    @param workers: how many there are.
    @param is_stopping: called when the service is about to stop.
    @param drain: ends this worker; called when the supervisor wants that, or has ended itself.
    @param renew: takes over secrets and the URL of the database.
    """

    def __init__(
        self,
        worker: int,
        workers: int,
        clock: Any,
        *,
        is_stopping: Callable[[], object],
        drain: Callable[[], object],
        renew: Callable[[Sequence[str], str | None], object],
    ) -> None:
        self._worker = worker
        self._workers = workers
        self._clock = clock
        self._is_stopping = is_stopping
        self._drain = drain
        self._renew = renew
        self._numbers = count(1)
        self._gathering: dict[int, Deferred[gathering.Gathered]] = {}
        self._locating: dict[int, Deferred[Place]] = {}
        self._is_lost = False
        self.reports: dict[str, Callable[[bool], Any]] = {}
        self.channel = to_supervisor(self._received, self._lost)

    def gather(self, what: str, names: bool) -> Deferred[gathering.Gathered]:
        """
        Ask the other workers, as in L{dcm_ws.http.gathering.Gather}.
        """
        request = next(self._numbers)
        answer: Deferred[gathering.Gathered] = Deferred(partial(_forget, self._gathering, request))
        self._gathering[request] = answer
        self.channel.send(Gather(request, what, names))
        # the supervisor itself may be stopped
        return answer.addTimeout(_GATHER_SECONDS, self._clock).addErrback(self._nobody, what)

    def _nobody(self, failure: Failure, what: str) -> gathering.Gathered:
        failure.trap(TimeoutError)
        others = [worker for worker in range(1, self._workers + 1) if worker != self._worker]
        return gathering.Gathered(
            [gathering.Said(worker, 0, bytes(NOTHING)) for worker in others], b"[]" if what == "metrics" else b"{}"
        )

    def place(self) -> Deferred[Place]:
        """
        Where the supervisor's embedded PostgreSQL is.  Fails with L{EmbeddedError}, also if the supervisor has ended.
        """
        if self._is_lost:
            return fail(EmbeddedError(_ENDED))
        request = next(self._numbers)
        answer: Deferred[Place] = Deferred(partial(_forget, self._locating, request))
        self._locating[request] = answer
        self.channel.send(Locate(request))
        return answer

    async def stop(self) -> None:
        """
        Do nothing: the supervisor stops its PostgreSQL itself.
        """

    def _received(self, message: ToWorker) -> None:
        match message:
            case Check():
                self.channel.send(message)
            case Ask(request, what, names):
                self.channel.send(Answer(request, msgspec.Raw(encode(self.reports[what](names)))))
            case Gathered(request, parts, own):
                gathered = self._gathering.pop(request, None)
                if gathered is not None:
                    said = [gathering.Said(part.worker, part.pid, bytes(part.value)) for part in parts]
                    gathered.callback(gathering.Gathered(said, bytes(own)))
            case Located(request, dsn, error):
                located = self._locating.pop(request, None)
                if located is not None and error:
                    located.errback(EmbeddedError(error))
                elif located is not None:
                    located.callback(Place(dsn, own=True))
            case Renew(secrets, database):
                self._renew(secrets, database)
            case IsStopping():
                self._is_stopping()
            case Drain():
                self._drain()
            case Start():
                raise AssertionError("a worker starts once")
            case _:
                assert_never(message)

    def _lost(self) -> None:
        self._is_lost = True
        while self._locating:
            self._locating.popitem()[1].errback(EmbeddedError(_ENDED))
        self._drain()


def _forget(waiting: dict[int, Any], request: int, answer: Deferred[Any]) -> None:
    waiting.pop(request, None)
