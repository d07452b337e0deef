"""
C{/health} and C{/stats}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from dcm_ws.http.request_headers import header
from dcm_ws.http.resources import Page


class ReportPage(Page):
    """
    A report on the service as JSON, which pages of any origin may read.

    @param report: makes the report, given whether to include the names of channels and agents.
    @param may_see_names: fires with whether a request may see these; None if all may.  Names of channels hold names of
        agents, so in production they are only for those with a token.
    """

    allowed = (*Page.allowed, "OPTIONS")

    def __init__(
        self,
        wall_ms: Callable[[], int],
        report: Callable[[bool], Mapping[str, object] | Deferred[Any]],
        may_see_names: Callable[[Request], Deferred[bool]] | None = None,
    ) -> None:
        super().__init__(wall_ms)
        self._report = report
        self._may_see_names = may_see_names

    def render(self, request: Request) -> bytes | int:
        request.setHeader("Access-Control-Allow-Origin", "*")
        return super().render(request)

    def get(self, request: Request) -> bytes | Deferred[bytes]:
        if self._may_see_names is None:
            return self._answer(request, True)
        # what is not UTF-8 is refused, as on all pages that read it
        header(request, "Authorization")
        return self._may_see_names(request).addCallback(partial(self._answer, request))

    def _answer(self, request: Request, names: bool) -> bytes | Deferred[bytes]:
        report = self._report(names)
        if isinstance(report, Deferred):
            return report.addCallback(partial(self._show, request))
        return self._show(request, report)

    def _show(self, request: Request, report: Mapping[str, object]) -> bytes:
        # of /health; /stats has no status
        if report.get("status") == "draining":
            request.setResponseCode(HTTPStatus.SERVICE_UNAVAILABLE, b"Service Unavailable")
        return self.answer(request, report)

    def options(self, request: Request) -> bytes:
        request.setResponseCode(HTTPStatus.NO_CONTENT)
        request.setHeader("Access-Control-Allow-Methods", ", ".join(self.allowed))
        request.setHeader("Access-Control-Allow-Headers", "Authorization, Content-Type")
        return b""
