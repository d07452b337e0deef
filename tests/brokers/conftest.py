from __future__ import annotations

from tests.integration.conftest import database
from tests.integration.owed import own, tables

__all__ = ["database", "own", "tables"]
