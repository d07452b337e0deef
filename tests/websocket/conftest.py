"""
The core with its connections, and a clock that the test advances.
"""

from __future__ import annotations

import pytest
import txaio
from twisted.internet.testing import MemoryReactorClock

from tests.websocket.ends import Ground


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Ground:
    reactor = MemoryReactorClock()
    reactor.advance(1000)
    # Autobahn's own timers
    monkeypatch.setattr(txaio.config, "loop", reactor)  # type: ignore[attr-defined]
    return Ground(reactor)
