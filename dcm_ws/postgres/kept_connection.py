"""
A connection to the database that is made when it is needed, and made again after it was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcm_ws.postgres.connection import (
    Address,
    DatabaseConnection,
    DatabaseUnavailableError,
    connect,
    deadline,
)

_SETTINGS_SECONDS = 10.0


class KeptConnection:
    """
    Keeps a connection for one user, who asks for it before each query and closes it after an error.

    @param address: returns where the database is.
    @param name: the name of the application, shown in C{pg_stat_activity}.
    @param runs: returns if a connection may still be made.
    @param settings: SQL that each connection begins with; empty for none.
    @param writable: as in L{connect}.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        name: str,
        *,
        runs: Callable[[], bool] = lambda: True,
        settings: str = "",
        writable: bool = False,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._name = name
        self._runs = runs
        self._settings = settings
        self._writable = writable
        self._connection: DatabaseConnection | None = None

    async def get(self) -> DatabaseConnection:
        """
        Return the connection; connect if there is none.

        @raise DatabaseUnavailableError: the service stops.
        """
        if self._connection is not None:
            return self._connection
        place = await self._address()
        if not self._runs():
            raise DatabaseUnavailableError("the service stops")
        self._connection = connection = DatabaseConnection(self._reactor)
        await connect(connection, place, self._name, writable=self._writable)
        connection.lost = lambda reason: self.close()
        if self._settings:
            with deadline(connection, _SETTINGS_SECONDS):
                await connection.runOperation(self._settings)
        return connection

    def close(self) -> None:
        """
        Close the connection, if there is one, also one that is being made.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.lost = None
            connection.close()
