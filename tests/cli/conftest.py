from __future__ import annotations

from tests.integration.conftest import database, stoppable

__all__ = ["database", "stoppable"]
