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

from dcm_ws.http.request_headers import bearer_token, header
from dcm_ws.http.resources import Page
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.tokens import Claims


class ReportPage(Page):
    """
    A report on the service as JSON, which pages of any origin may read.

    @param verify: returns the claims of a token, or raises L{ProtocolError}.
    @param production: names are only for those with a token.
    @param report: makes the report, given whether to include the names of channels and agents.
    """

    allowed = (*Page.allowed, "OPTIONS")

    def __init__(
        self,
        wall_ms: Callable[[], int],
        report: Callable[[bool], Mapping[str, object] | Deferred[Any]],
        *,
        verify: Callable[[str], Claims],
        production: bool,
    ) -> None:
        super().__init__(wall_ms)
        self._verify = verify
        self._production = production
        self._report = report

    def render(self, request: Request) -> bytes | int:
        request.setHeader("Access-Control-Allow-Origin", "*")
        return super().render(request)

    def get(self, request: Request) -> bytes | Deferred[bytes]:
        report = self._report(self._may_see_names(request))
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

    def _may_see_names(self, request: Request) -> bool:
        """
        In production the names of channels, which hold names of agents, are only for those with a token.
        """
        if not self._production:
            return True
        token = bearer_token(header(request, "Authorization"))
        try:
            return bool(token) and bool(self._verify(token))
        except ProtocolError:
            return False
