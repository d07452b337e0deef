from __future__ import annotations

from tests.cli.conftest import server
from tests.integration.conftest import database

__all__ = ["database", "server"]
