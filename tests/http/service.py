"""
The HTTP side of a service, without a port.
"""

from __future__ import annotations

import json
from typing import Any

from treq.testing import StubTreq
from twisted.internet.testing import MemoryReactorClock

from dcm_ws.core.counts import LimitCounts
from dcm_ws.core.hub import Hub
from dcm_ws.http.assets import pages
from dcm_ws.http.site import QuietSite, make_site
from dcm_ws.http.status import ReportPage
from tests.fakes import make_hub, make_report

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
        self.hub: Hub = make_hub(self.reactor, **rules)
        self.database: dict[str, object] = {"state": "up"}
        self.limits = LimitCounts()
        report = make_report(self.hub, database=lambda: self.database)
        self.site: QuietSite = make_site(
            self.hub.wall_ms,
            {
                b"health": ReportPage(self.hub, report.health),
                b"stats": ReportPage(self.hub, report.stats),
                **dict(pages(self.hub.wall_ms)),
            },
            self.reactor,
            HTTP_TIMEOUT,
            ("/", "/ws"),
            self.limits,
        )

    def get(self, path: str, method: str = "GET", **headers: str) -> ANSWER:
        """
        The status, the headers and the body of the response.
        """
        treq = StubTreq(self.site.resource)
        answer: list[Any] = []
        url = f"http://localhost{path}"
        treq.request(method, url, headers=headers, allow_redirects=False).addCallback(answer.append)
        treq.flush()
        treq.content(answer[0]).addCallback(answer.append)
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
