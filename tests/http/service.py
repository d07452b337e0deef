"""
The HTTP side of a service, without a port.
"""

from __future__ import annotations

import json
from typing import Any

from treq.testing import StubTreq
from twisted.internet.testing import MemoryReactorClock
from twisted.web.resource import IResource

from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.assets import pages
from dcm_ws.http.resources import make_root
from dcm_ws.http.site import QuietSite, make_site
from tests.fakes import make_core, make_page, make_report

HTTP_TIMEOUT = 30.0
ANSWER = tuple[int, dict[str, str], bytes]


class Service:
    """
    The HTTP side of a service.

    @ivar database: the state of its database.
    """

    def __init__(self, **rules: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1000)
        self.core: Core = make_core(self.reactor, **rules)
        self.database: dict[str, object] = {"state": "up"}
        self.limits = LimitCounts()
        report = make_report(self.core, database=lambda: self.database)
        self._resources: dict[bytes, IResource] = {
            b"health": make_page(self.core, report.health),
            b"stats": make_page(self.core, report.stats),
            **dict(pages(self.core.world.wall_ms)),
        }
        self.site: QuietSite = make_site(
            self.core.world.wall_ms,
            self._resources,
            self.reactor,
            HTTP_TIMEOUT,
            ("/", "/ws"),
            self.limits,
        )

    def put(self, path: bytes, resource: IResource) -> None:
        """
        Add a page.
        """
        self._resources[path] = resource
        self.site.resource = make_root(self.core.world.wall_ms, self._resources, ("/", "/ws"))

    def get(self, path: str, method: str = "GET", **headers: str) -> ANSWER:
        """
        The status, the headers and the body of the response.
        """
        treq = StubTreq(self.site.resource)
        answer: list[Any] = []
        url = f"http://localhost{path}"
        treq.request(method, url, headers=headers, allow_redirects=False).addCallback(answer.append)  # type: ignore[attr-defined]
        treq.flush()
        treq.content(answer[0]).addCallback(answer.append)  # type: ignore[attr-defined]
        treq.flush()
        response, body = answer
        found = {name.decode(): values[0].decode() for name, values in response.headers.getAllRawHeaders()}
        return response.code, found, body

    def json(self, path: str, **headers: str) -> dict[str, Any]:
        """
        The JSON object in the response.
        """
        value: dict[str, Any] = json.loads(self.get(path, **headers)[2])
        return value
