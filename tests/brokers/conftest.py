from __future__ import annotations

from tests.integration.conftest import database

__all__ = ["database"]
