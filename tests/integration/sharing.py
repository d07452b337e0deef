"""
Services that the tests of a module share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.integration.databases import PostgresServer
from tests.integration.running import Service, production_service, service


class SharedServices:
    """
    Starts each service at its first use, and keeps it running for the tests that follow.

    @param stack: stops the services.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._running: dict[tuple[str, ...], Service] = {}

    def get(self, *options: str, in_production: PostgresServer | None = None) -> Service:
        """
        A service with these options; without a database unless they name one.

        @param in_production: the database of a service in production, for which
            L{make_token<tests.integration.running.make_token>} makes tokens; None for development.
        """
        key = options if in_production is None else (*options, "in production", in_production.url)
        if key not in self._running:
            starting = service(*options) if in_production is None else production_service(in_production.url, *options)
            self._running[key] = self._stack.enter_context(starting)
        return self._running[key]

    @contextlib.contextmanager
    def lend(self, *options: str, in_production: PostgresServer | None = None) -> Iterator[Service]:
        """
        L{get} a service for one test; the clients that the test connected are closed at its end.
        """
        running = self.get(*options, in_production=in_production)
        yield running
        running.forget_clients()
