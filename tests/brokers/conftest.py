from __future__ import annotations

from tests.integration.conftest import database
from tests.integration.owed import own, schema, tables

__all__ = ["database", "own", "schema", "tables"]
