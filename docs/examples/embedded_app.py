"""
An application with its own web service, which publishes its events to WebSocket clients through dcm-ws.

    python docs/examples/embedded_app.py
    curl -d 'paint the fence' http://127.0.0.1:8080/

Each task that is posted is published as C{task.created} on C{topics/tasks}, and therefore also on C{global}.  To choose
the ports, run C{embedded_app.py WEB_PORT WEBSOCKET_PORT}; 0 lets the system choose a port.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from dcm_ws import Settings, make_service
from dcm_ws.channels import parse_channel

TASKS = parse_channel("topics/tasks")


class TaskList(Resource):
    """
    The application's own web service, which does not use dcm-ws: it accepts tasks by POST.
    """

    isLeaf = True

    def __init__(self, added: Callable[[int, str], object]) -> None:
        super().__init__()
        self._numbers = itertools.count(1)
        self._added = added

    def render_POST(self, request: Request) -> bytes:
        text = request.content.read().decode(errors="replace")
        number = next(self._numbers)
        self._added(number, text)
        request.setResponseCode(201)
        return b"task %d\n" % number


async def serve(reactor, web_port: str = "8080", websocket_port: str = "3849") -> None:
    # without a database, clients receive only the events of this application and of clients
    events = make_service(Settings(listen=(f"tcp:{websocket_port}:interface=127.0.0.1",)), reactor)

    def added(number: int, text: str) -> None:
        events.hub.announce(TASKS, "task.created", {"task_id": number, "text": text})

    web = endpoints.serverFromString(reactor, f"tcp:{web_port}:interface=127.0.0.1")
    web_service = StreamServerEndpointService(web, Site(TaskList(added)))

    application = MultiService()
    events.setServiceParent(application)
    web_service.setServiceParent(application)

    # before the reactor stops, close the ports, and the clients with a code that asks them to reconnect
    reactor.addSystemEventTrigger("before", "shutdown", application.stopService)
    application.startService()
    await events.ready
    await Deferred()  # run until SIGINT or SIGTERM


if __name__ == "__main__":
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    task.react(lambda reactor: Deferred.fromCoroutine(serve(reactor, *sys.argv[1:])))
