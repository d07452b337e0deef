from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.running import Service, service


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with service() as started:
        yield started
