"""
Starts services for the tests in JavaScript, and runs statements in their databases: without a new Python for each.

It prints the port that it listens on, and runs until its standard input ends.  Each line of a connection is a call in
JSON, such as C{{"start": {"options": ["--no-database"]}}}, and is answered with a line.  A connection has one service
at most; if it ends before the service does, the service is killed.
"""

from __future__ import annotations

import json
import re
import signal
import socketserver
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2

from tests.integration.running import Service


class Calls(socketserver.StreamRequestHandler):
    """
    Answers the calls of one connection.
    """

    _service: Service | None = None

    def handle(self) -> None:
        """
        Answer until the connection ends.
        """
        calls: dict[str, Callable[..., Any]]
        calls = {"start": self._start, "stop": self._stop, "execute": self._execute}
        try:
            for line in self.rfile:
                ((name, arguments),) = json.loads(line).items()
                try:
                    answer = {"result": calls[name](**arguments)}
                except Exception as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                self.wfile.write(json.dumps(answer).encode() + b"\n")
        except ConnectionError:
            # a test has ended before its service was ready
            pass
        finally:
            if self._service is not None:
                self._service.stop(signal.SIGKILL)

    def _start(self, options: list[str], env: dict[str, str], wait: str) -> dict[str, Any]:
        assert self._service is None
        self._service = Service(*options, env=env, wait=wait)
        found = re.search(r"embedded PostgreSQL: (\S+)", self._service.log)
        return {"port": self._service.port, "database": found and found[1]}

    def _stop(self, how: str) -> None:
        assert self._service is not None
        self._service.stop(signal.Signals[how])
        for word in ("Traceback", "Unhandled"):
            assert word not in self._service.log, self._service.log

    def _execute(self, url: str, statement: str, values: list[Any]) -> None:
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement, values or None)


class Server(socketserver.ThreadingTCPServer):
    """
    A thread for each connection.
    """

    request_queue_size = 50


def main() -> None:
    with Server(("127.0.0.1", 0), Calls) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
