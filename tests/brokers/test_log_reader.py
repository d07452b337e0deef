"""
The reader of the log while the database cannot be reached.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from dcm_ws.brokers.log_reader import LogReader
from dcm_ws.postgres.connection import DatabaseUnavailableError, Place


async def nowhere() -> Place:
    """
    A database that cannot be found, which is known at once.
    """
    raise DatabaseUnavailableError("it is away")


def test_every_read_is_answered(clock: Clock) -> None:
    """
    Reads are answered also if nothing has to be waited for: shortly after one that failed, and after that.
    """
    reader = LogReader(clock, nowhere, clock.seconds)
    reader.startService()
    answers: list[Any] = []
    for _ in range(3):
        reader.page({"topics/t": 0}, 9, 5, answers.append)
        reader.find([1], answers.append)
        clock.advance(0.3)
    assert answers == [None] * 6
    assert reader.waiting == 0
