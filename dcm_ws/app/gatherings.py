"""
Questions of one worker to all others, which the supervisor passes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec

from dcm_ws.app.control import Answer, Ask, Gather, Gathered, Part
from dcm_ws.app.worker_process import WorkerProcess

SECONDS = 0.5
"""
Seconds that the other workers have for their answer.
"""


class _Gathering:
    """
    A question that is being answered.

    @ivar waiting: the parts that are missing, by the number of the worker.
    """

    def __init__(self, asker: WorkerProcess, request: int, parts: list[Part], own: msgspec.Raw) -> None:
        self.asker = asker
        self.pid = asker.pid
        self.answer = Gathered(request, parts, own)
        self.waiting = {part.worker: part for part in parts if part.pid}
        self.timer: Any = None


class Gatherings:
    """
    All questions that are being answered.

    @param clock: the reactor.
    @param own: what the supervisor adds to the reports of a kind, as JSON.
    """

    def __init__(self, clock: Any, own: Callable[[str], bytes]) -> None:
        self._clock = clock
        self._own = own
        self._numbers = count(1)
        self._open: dict[int, _Gathering] = {}

    def ask(self, asker: WorkerProcess, question: Gather, workers: Sequence[WorkerProcess]) -> None:
        """
        Ask all workers but the one that wants to know; those that have not started yet have no answer.
        """
        others = [worker for worker in workers if worker is not asker]
        parts = [Part(worker.number, worker.pid) for worker in others]
        gathering = _Gathering(asker, question.request, parts, msgspec.Raw(self._own(question.what)))
        number = next(self._numbers)
        self._open[number] = gathering
        for worker in others:
            if worker.is_running:
                worker.send(Ask(number, question.what, question.names))
            else:
                gathering.waiting.pop(worker.number, None)
        gathering.timer = self._clock.callLater(SECONDS, self._end, number)
        self._end_if_complete(number)

    def answered(self, worker: WorkerProcess, answer: Answer) -> None:
        """
        A worker has answered, perhaps too late.
        """
        gathering = self._open.get(answer.request)
        part = None if gathering is None else gathering.waiting.pop(worker.number, None)
        if part is not None:
            part.value = msgspec.Raw(bytes(answer.value))
            self._end_if_complete(answer.request)

    def gone(self, worker: WorkerProcess) -> None:
        """
        A worker has ended: nothing comes from it any more.
        """
        for number, gathering in list(self._open.items()):
            if gathering.waiting.pop(worker.number, None) is not None:
                self._end_if_complete(number)

    def _end_if_complete(self, number: int) -> None:
        if not self._open[number].waiting:
            self._open[number].timer.cancel()
            self._end(number)

    def _end(self, number: int) -> None:
        gathering = self._open.pop(number)
        # not to the next process of the same worker, which has not asked
        if gathering.asker.pid == gathering.pid:
            gathering.asker.send(gathering.answer)
